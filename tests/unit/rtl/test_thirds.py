"""Three products on one multiplier equal three products: proven, and seen in the DSP blocks."""

import dataclasses
import re

import numpy as np
import pytest
from amaranth import Cat, Const, Module, Signal, signed

from tests.unit.rtl.test_packing import in_range, prove, yosys
from vitrify.arch.config import Part
from vitrify.arch.presets import preset
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.array.packing import Packing
from vitrify.rtl.array.thirds import RESIDUE, SHIFT, Thirds, multiply
from vitrify.rtl.lib.shared import to_verilog

BYTES = Packing(18)
THIRDS = Thirds(BYTES)
#: Sums of a chain's products: of nibbles by signed bytes, of bytes by any operand.
LEAST, MOST = BYTES.chain * -8 * 127, BYTES.chain * -8 * -128
REACH = BYTES.chain * 127 * 255


@pytest.mark.parametrize("odd", [0, 1])
def test_join_is_shift_and_add(odd, tmp_path):
    m = Module()
    low, high = (Signal(signed(8), name=name) for name in ("low", "high"))
    first, second, third = THIRDS.nibbles(low, high, odd)
    assert [len(part) for part in (first, second, third)] == [4, 4, 4]
    wanted = first + (second << SHIFT) + (third << 2 * SHIFT)
    found = THIRDS.join(low, high, odd, Const(1)).as_signed()
    assert len(found) == THIRDS.WIDTH == 27
    pair = THIRDS.join(low, high, odd, Const(0)).as_signed()
    legal = (low > -128) & (high > -128)
    prove(tmp_path, m, [low, high],
          (found == wanted) & (~legal | (pair == (high << BYTES.shift) + low)))


def test_the_sums_of_nibbles_come_back(tmp_path):
    """All three that a chain can reach, from their packed sum and two of them modulo 4."""
    m = Module()
    sums = [Signal(signed(14), name=name) for name in ("low", "middle", "high")]
    total = sum((part << SHIFT * at for at, part in enumerate(sums[1:], 1)), sums[0])
    low, rest = THIRDS.divide(total, sums[1][:RESIDUE], Const(1))
    found = low, *THIRDS.finish(rest, sums[2][:RESIDUE], Const(1))
    legal = Cat(in_range(part, LEAST, MOST) for part in sums).all()
    same = Cat(a == b for a, b in zip(found, sums, strict=True)).all()
    prove(tmp_path, m, sums, ~legal | same)


def test_the_sums_of_a_pair_of_bytes_come_back(tmp_path):
    """The low one in two parts that can be added apart, whatever is taken for residues."""
    m = Module()
    low, high = (Signal(signed(REACH.bit_length() + 1), name=name) for name in ("low", "high"))
    noise = [Signal(RESIDUE, name=f"noise{i}") for i in range(2)]
    lowest, rest = THIRDS.divide((high << BYTES.shift) + low, noise[0], Const(0))
    middle, highest = THIRDS.finish(rest, noise[1], Const(0))
    legal = in_range(low, -REACH, REACH) & in_range(high, -REACH, REACH)
    prove(tmp_path, m, [low, high, *noise],
          ~legal | (THIRDS.merge(lowest, middle) == low) & (highest == high))


def test_a_product_modulo_four(tmp_path):
    m = Module()
    a, b = (Signal(RESIDUE, name=name) for name in "ab")
    prove(tmp_path, m, [a, b], multiply(a, b) == (a * b)[:RESIDUE])


def test_one_product_exhaustively():
    """The integer identity over all nibbles and signed bytes, as numbers."""
    nibbles = np.arange(-8, 8, dtype=np.int64)
    low, middle, high = np.meshgrid(nibbles, nibbles, nibbles, indexing="ij")
    packed = low + (middle << SHIFT) + (high << 2 * SHIFT)
    assert -(1 << THIRDS.WIDTH - 1) <= packed.min() <= packed.max() < 1 << THIRDS.WIDTH - 1
    for x in range(-128, 128):
        rest = packed * x
        for part, above in ((low, middle), (middle, high)):
            # Of a sum modulo 2**13, the upper two bits less those of the sum above.
            found = (rest - (above * x % 4 << SHIFT)) % (1 << SHIFT + RESIDUE)
            found -= (found > MOST) << SHIFT + RESIDUE
            assert (found == part * x).all()
            rest = rest - found >> SHIFT
        assert (rest == high * x).all()


@pytest.mark.slow
def test_three_columns_take_the_blocks_of_two(tmp_path):
    small = dataclasses.replace(
        preset("nano"), depth=4, width=8, packing=True, part=Part(name="xcup", family="xcup"))
    counts = []
    for thirds in (False, True):
        unit = MatrixUnit(dataclasses.replace(small, nibble_thirds=thirds))
        (tmp_path / "unit.v").write_text(to_verilog(unit, "unit"))
        yosys(tmp_path, "read_verilog unit.v; synth_xilinx -family xcup -top unit -flatten "
                        "-run :map_memory; tee -o stat.txt stat")
        found = re.search(r"(\d+)\s+DSP48E2|DSP48E2\s+(\d+)", (tmp_path / "stat.txt").read_text())
        assert found
        counts.append(int(found[1] or found[2]))
    assert counts == [16, 16]
