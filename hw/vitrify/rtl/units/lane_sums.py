"""A lane group's sums out of a row of the drain memory."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.array.packing import Packing

from .delay import Delays, select, select_latency


def lane_sums_latency(arch: ArchConfig) -> int:
    """Cycles that :func:`lane_sums` takes."""
    return select_latency(arch.groups) + (arch.nibble_tiles > 1)


def lane_sums(m: Module, arch: ArchConfig, row: data.View, d: Delays, cycle: int) -> Value:
    """The group's E sums of ACC_BITS; ``row`` is there in ``cycle``."""
    bits = row.as_value()
    size = len(bits) // arch.groups
    groups = [bits[at : at + size] for at in range(0, len(bits), size)]
    chosen = select(m, groups, lambda step: d.at("group", cycle + step), "columns")
    return chosen if arch.nibble_tiles == 1 else _halves(
        m, arch, chosen, d, cycle + select_latency(arch.groups))


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
