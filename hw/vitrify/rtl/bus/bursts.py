"""Requests of many words become AXI bursts of a bounded, aligned length."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import memmap
from vitrify.arch.config import PAGE_BYTES, ArchConfig
from vitrify.rtl.interfaces import MEMORY_REQUEST

from .axi import MAX_BEATS


def unit_bytes(arch: ArchConfig, burst_beats: int) -> int:
    """Bytes that no burst splits: a word of K bytes, or a longest burst if that is shorter."""
    if burst_beats < 1 or burst_beats & (burst_beats - 1) or burst_beats > MAX_BEATS:
        raise ValueError(
            f"burst_beats must be a power of two from 1 to {MAX_BEATS}, not {burst_beats!r}"
        )
    return min(arch.depth, burst_beats * arch.bus_bytes)


def burst_units(arch: ArchConfig, fifo_words: int, burst_beats: int) -> int:
    """Most units of a burst: a power of two, at most half of the FIFO behind (or before) it."""
    if fifo_words < 2:
        raise ValueError(f"a memory client's FIFO must hold at least 2 words, not {fifo_words!r}")
    unit = unit_bytes(arch, burst_beats)
    limit = min(
        burst_beats * arch.bus_bytes // unit, fifo_words * arch.depth // unit // 2,
        PAGE_BYTES // unit,
    )
    return 1 << (limit.bit_length() - 1)


def burst_layout(units: int) -> data.StructLayout:
    """A burst of at most ``units`` units; ``last`` of its request."""
    return data.StructLayout({
        "address": memmap.ADDRESS_BITS,
        "units": range(units + 1),
        "last": unsigned(1),
    })


class BurstSplitter(wiring.Component):
    """Cut requests at multiples of ``units`` units, so that no burst crosses 4 KiB.

    A request of zero words disappears.  One burst every cycle; the first one two cycles after
    its request.

    Parameters
    ----------
    arch : ArchConfig
    units : int
        Most units of a burst, a power of two with ``units * unit <= 4096``.
    unit : int
        Bytes of a unit, a power of two, at most K.

    Members
    -------
    i : In(stream.Signature(MEMORY_REQUEST))
    o : Out(stream.Signature(burst_layout(units)))
    """

    i: Any
    o: Any

    def __init__(self, arch: ArchConfig, *, units: int, unit: int) -> None:
        self.units = units
        self._unit_bits = exact_log2(unit)
        self._part_bits = exact_log2(arch.depth // unit)
        super().__init__({
            "i": In(stream.Signature(MEMORY_REQUEST)),
            "o": Out(stream.Signature(burst_layout(units))),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        unit_bits, low_bits = self._unit_bits, exact_log2(self.units)
        address = Signal(memmap.ADDRESS_BITS - unit_bits, reset_less=True)  # in units
        left = Signal(MEMORY_REQUEST["words"].width + self._part_bits, reset_less=True)
        active = Signal()

        low, high = address[:low_bits], address[low_bits:]
        room = Signal(range(self.units + 1))
        fits = Signal()
        m.d.comb += [
            room.eq(self.units - low),
            fits.eq(left <= room),
            self.i.ready.eq(~active),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(active & (~self.o.valid | self.o.ready)):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.address.eq(address << unit_bits),
                self.o.p.units.eq(left),
                self.o.p.last.eq(fits),
                active.eq(~fits),
                # Meaningless after the last burst, when nobody looks.
                address.eq(Cat(Const(0, low_bits), high + 1)),
                left.eq(left - room),
            ]
            with m.If(~fits):
                m.d.sync += self.o.p.units.eq(room)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address >> unit_bits),
                left.eq(self.i.p.words << self._part_bits),
                active.eq(self.i.p.words != 0),
            ]
        return m


