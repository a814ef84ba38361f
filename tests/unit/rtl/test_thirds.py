"""Three products on one multiplier equal three products: proven, and seen in the DSP blocks."""

import dataclasses
import re

import numpy as np
import pytest
from amaranth import Cat, Const, Module, Signal, signed

from tests.unit.rtl.test_packing import in_range, prove, yosys
from vitrify.arch.config import Part
from vitrify.arch.presets import preset
from vitrify.rtl.array import thirds
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.array.packing import Packing
from vitrify.rtl.array.thirds import BYTES, LOWEST, MIDDLE, Fields
from vitrify.rtl.lib.shared import to_verilog

UPPER = LOWEST + MIDDLE
#: Products of a chain, and what it may add up to: of nibbles by signed bytes, of bytes by any
#: operand.
CHAIN = Packing(18).chain
LEAST, MOST = CHAIN * -8 * 127, CHAIN * -8 * -128
REACH = CHAIN * 128 * 255
#: What the lower sums are raised by.
BIAS, BIAS_BYTES = 4064, 1 << 17


@pytest.mark.parametrize("half", [0, 1])
def test_join_puts_nibbles_side_by_side(half, tmp_path):
    m = Module()
    low, high = (Signal(8, name=name) for name in ("low", "high"))
    stored = thirds.even(low, Const(1, 1)), thirds.odd(high, half, Const(1))
    found = thirds.join(*stored, Const(1)).as_signed()
    assert len(found) == thirds.WIDTH == 27
    first, second, third = (
        part.as_signed() for part in (low[:4], low[4:], high[4 * half : 4 * half + 4]))
    prove(tmp_path, m, [low, high],
          found == first + 8 + (second + 8 << LOWEST) + (third << UPPER))


def test_join_puts_bytes_side_by_side(tmp_path):
    """All of them, -128 among them."""
    m = Module()
    low, high, other = (Signal(signed(8), name=name) for name in ("low", "high", "other"))
    stored = thirds.even(low.as_unsigned(), Const(0, 1)), thirds.odd(high, 0, Const(0))
    found = thirds.join(*stored, Const(0)).as_signed()
    prove(tmp_path, m, [low, high, other], found == low + 128 + (high << BYTES))


def test_residues_are_those_of_the_upper_nibbles(tmp_path):
    m = Module()
    low, high = (Signal(8, name=name) for name in ("low", "high"))
    middle, highest = thirds.residues(
        thirds.even(low, Const(1, 1)), thirds.odd(high, 0, Const(1)))
    prove(tmp_path, m, [low, high], (middle == low[4]) & (highest == high[:2]))


def test_the_offset_takes_off_what_was_stored_too_much(tmp_path):
    m = Module()
    operands, nibbles = Signal(signed(12), name="operands"), Signal(name="nibbles")
    found = thirds.offset(operands, nibbles)
    assert len(found) == thirds.OFFSET
    of_nibbles = in_range(operands, -CHAIN * 128, CHAIN * 127) & (
        found == (BIAS - 8 * operands) * (1 + (1 << LOWEST)))
    of_bytes = in_range(operands, -CHAIN * 128, CHAIN * 255) & (
        found == BIAS_BYTES - 128 * operands)
    legal = in_range(operands, -CHAIN * 128, CHAIN * 255)
    small = in_range(operands, -CHAIN * 128, CHAIN * 127)
    prove(tmp_path, m, [operands, nibbles],
          (~nibbles | ~small | of_nibbles) & (nibbles | ~legal | of_bytes))


def finished(chains, nibbles):
    """Lowest, highest and middle sum of chains, given as fields."""
    sums = Fields(*(sum(parts[1:], parts[0]) for parts in zip(*chains, strict=True)))
    return thirds.finish(thirds.gather(sums, len(chains), Const(nibbles)), Const(nibbles))


@pytest.mark.parametrize("chains", [1, 2])
def test_the_sums_of_nibbles_come_back(chains, tmp_path):
    """All three that chains can reach, from their packed sums and two of them modulo 2 and 4."""
    m = Module()
    sums = [[Signal(signed(14), name=f"{name}{i}") for name in ("low", "middle", "high")]
            for i in range(chains)]
    found = finished([
        thirds.fields(low + BIAS + (middle + BIAS << LOWEST) + (high << UPPER),
                      middle[0], high[:2])
        for low, middle, high in sums], 1)
    low, middle, high = (sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True))
    every = [part for chain in sums for part in chain]
    legal = Cat(in_range(part, LEAST, MOST) for part in every).all()
    same = Cat(a == b for a, b in zip(found, (low, high, middle), strict=True)).all()
    prove(tmp_path, m, every, ~legal | same)


@pytest.mark.parametrize("chains", [1, 2])
def test_the_sums_of_a_pair_of_bytes_come_back(chains, tmp_path):
    """The low one in two parts that can be added apart, whatever is taken for residues."""
    m = Module()
    sums = [[Signal(signed(REACH.bit_length() + 1), name=f"{name}{i}") for name in ("low", "high")]
            for i in range(chains)]
    noise = [Signal(3, name=f"noise{i}") for i in range(chains)]
    lowest, highest, middle = finished([
        thirds.fields((high << BYTES) + low + BIAS_BYTES, some[0], some[1:])
        for (low, high), some in zip(sums, noise, strict=True)], 0)
    low, high = (sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True))
    every = [part for chain in sums for part in chain]
    legal = Cat(in_range(part, -REACH, REACH) for part in every).all()
    prove(tmp_path, m, [*every, *noise],
          ~legal | (thirds.merge(lowest, middle) == low) & (highest == high))


@pytest.mark.parametrize("bits", [1, 2])
def test_a_product_of_low_bits(bits, tmp_path):
    m = Module()
    a, b = (Signal(bits, name=name) for name in "ab")
    prove(tmp_path, m, [a, b], thirds.multiply(a, b) == (a * b)[:bits])


def test_one_product_exhaustively():
    """The integer identity over all nibbles and signed bytes, as numbers."""
    nibbles = np.arange(-8, 8, dtype=np.int64)
    low, middle, high = np.meshgrid(nibbles, nibbles, nibbles, indexing="ij")
    packed = low + 8 + (middle + 8 << LOWEST) + (high << UPPER)
    assert -(1 << thirds.WIDTH - 1) <= packed.min() <= packed.max() < 1 << thirds.WIDTH - 1
    for x in range(-128, 128):
        rest = packed * x + (BIAS - 8 * x) * (1 + (1 << LOWEST))
        for part, above, bits in ((low, middle, LOWEST), (middle, high, MIDDLE)):
            # Modulo 2**13, the bits beyond the field less those of the field above.
            bias = BIAS * (part is low)
            found = (rest - ((above * x + bias) % 4 << bits)) % (1 << 13)
            assert (found == part * x + BIAS).all()
            rest = rest - found >> bits
        assert (rest == high * x).all()


@pytest.mark.slow
def test_three_columns_take_the_blocks_of_two(tmp_path):
    small = dataclasses.replace(
        preset("nano"), depth=4, width=8, packing=True, part=Part(name="xcup", family="xcup"))
    counts = []
    for nibbles in (False, True):
        unit = MatrixUnit(dataclasses.replace(small, nibble_thirds=nibbles))
        (tmp_path / "unit.v").write_text(to_verilog(unit, "unit"))
        yosys(tmp_path, "read_verilog unit.v; synth_xilinx -family xcup -top unit -flatten "
                        "-run :map_memory; tee -o stat.txt stat")
        found = re.search(r"(\d+)\s+DSP48E2|DSP48E2\s+(\d+)", (tmp_path / "stat.txt").read_text())
        assert found
        counts.append(int(found[1] or found[2]))
    assert counts == [16, 16]
