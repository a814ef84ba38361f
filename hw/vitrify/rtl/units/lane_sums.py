"""A lane group's sums out of a row of the drain memory."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.array import thirds
from vitrify.rtl.array.packing import Packing

from .delay import Delays, select, select_latency


def lane_sums_latency(arch: ArchConfig) -> int:
    """Cycles that :func:`lane_sums` takes."""
    return select_latency(arch.most_groups) + arch.sees_nibbles


def lane_sums(m: Module, arch: ArchConfig, row: data.View, d: Delays, cycle: int) -> Value:
    """The group's E sums of ACC_BITS; ``row`` is there in ``cycle``."""
    if arch.nibble_thirds:
        return _thirds(m, arch, row, d, cycle)
    bits = row.as_value()
    size = len(bits) // arch.groups
    groups = [bits[at : at + size] for at in range(0, len(bits), size)]
    chosen = select(m, groups, lambda step: d.at("group", cycle + step), "columns")
    return chosen if arch.nibble_tiles == 1 else _halves(
        m, arch, chosen, d, cycle + select_latency(arch.groups))


def _thirds(m: Module, arch: ArchConfig, row: data.View, d: Delays, cycle: int) -> Value:
    """Highest fields are the columns behind all others, or those of odd bytes."""
    lanes, pairs = arch.lanes, arch.width // 2
    low, high, middle = (
        [row[3 * pair + part] for pair in range(pairs)] for part in range(3))
    columns = [one for pair in zip(low, middle, strict=True) for one in pair] + high
    # Groups of highest fields alone have no bytes, but take as long.
    bytes_ = high + high[: pairs // 2]
    chosen, odd = (
        select(m, [Cat(values[at : at + size]) for at in range(0, len(values), size)],
               lambda step: d.at("group", cycle + step), name)
        for name, values, size in (("columns", columns, lanes), ("bytes", bytes_, lanes // 2)))
    nibbles, sums = d.at("nibbles", cycle + select_latency(arch.most_groups)), []
    for lane in range(lanes):
        one, neighbour = (
            chosen.word_select(at, arch.sum_bits).as_signed() for at in (lane, lane ^ 1))
        total = Signal(formats.ACC_BITS, name=f"sum_{lane}", reset_less=True)
        m.d.sync += total.eq(
            Mux(nibbles, one, odd.word_select(lane // 2, arch.sum_bits).as_signed()) if lane % 2
            else thirds.merge(one, Mux(nibbles, 0, neighbour)))
        sums.append(total)
    return Cat(sums)


def _halves(m: Module, arch: ArchConfig, chosen: Value, d: Delays, cycle: int) -> Value:
    """Of nibbles one half of every sum, of bytes both together."""
    packing = Packing.of(arch)
    assert packing is not None
    nibbles, second = d.at("nibbles", cycle), d.at("second", cycle)
    sums = []
    for lane in range(arch.lanes):
        low, high = (
            chosen.word_select(2 * lane + half, arch.sum_bits).as_signed() for half in (0, 1))
        one, other = Mux(nibbles & second, high, low), Mux(nibbles, 0, high)
        total = Signal(formats.ACC_BITS, name=f"sum_{lane}", reset_less=True)
        m.d.sync += total.eq(packing.merge(one, other))
        sums.append(total)
    return Cat(sums)
