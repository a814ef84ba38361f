"""Requests of many words become AXI bursts of a bounded, aligned length."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import MEMORY_REQUEST

from .axi import MAX_BEATS, PAGE_BYTES

#: Most beats of a burst: long enough that a DRAM controller opens few rows and that 8 bursts hide
#: a latency of 128 cycles, short enough that a client never waits long for its turn.
BURST_BEATS = 16
#: Bursts in flight at once, per direction.
OUTSTANDING = 8


def beats_per_word(arch: ArchConfig) -> int:
    """Bus beats that carry a word of K bytes."""
    return arch.depth // arch.bus_bytes


def burst_words(arch: ArchConfig, fifo_words: int, burst_beats: int = BURST_BEATS) -> int:
    """Most words of a burst: a power of two, at most half of the FIFO behind (or before) it.

    A word may need more beats than ``burst_beats``; it is never split.
    """
    if burst_beats < 1 or burst_beats & (burst_beats - 1) or burst_beats > MAX_BEATS:
        raise ValueError(
            f"burst_beats must be a power of two from 1 to {MAX_BEATS}, not {burst_beats!r}"
        )
    if fifo_words < 2:
        raise ValueError(f"a memory client's FIFO must hold at least 2 words, not {fifo_words!r}")
    limit = min(burst_beats // beats_per_word(arch), fifo_words // 2, PAGE_BYTES // arch.depth)
    return 1 << (max(limit, 1).bit_length() - 1)


def burst_layout(words: int) -> data.StructLayout:
    """A burst of at most ``words`` words; ``last`` of its request."""
    return data.StructLayout({
        "address": memmap.ADDRESS_BITS,
        "words": range(words + 1),
        "last": unsigned(1),
    })


class BurstSplitter(wiring.Component):
    """Cut requests at multiples of ``words`` words, so that no burst crosses 4 KiB.

    A request of zero words disappears.  One burst every cycle; the first one two cycles after
    its request.

    Parameters
    ----------
    arch : ArchConfig
    words : int
        Most words of a burst, a power of two with ``words * K <= 4096``.

    Members
    -------
    i : In(stream.Signature(MEMORY_REQUEST))
    o : Out(stream.Signature(burst_layout(words)))
    """

    i: Any
    o: Any

    def __init__(self, arch: ArchConfig, *, words: int) -> None:
        self.arch = arch
        self.words = words
        super().__init__({
            "i": In(stream.Signature(MEMORY_REQUEST)),
            "o": Out(stream.Signature(burst_layout(words))),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        word_bits, low_bits = exact_log2(self.arch.depth), exact_log2(self.words)
        address = Signal(memmap.ADDRESS_BITS - word_bits, reset_less=True)  # in words
        left = Signal(MEMORY_REQUEST["words"].width, reset_less=True)
        active = Signal()

        low, high = address[:low_bits], address[low_bits:]
        room = Signal(range(self.words + 1))
        fits = Signal()
        m.d.comb += [
            room.eq(self.words - low),
            fits.eq(left <= room),
            self.i.ready.eq(~active),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(active & (~self.o.valid | self.o.ready)):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.address.eq(address << word_bits),
                self.o.p.words.eq(left),
                self.o.p.last.eq(fits),
                active.eq(~fits),
                # Meaningless after the last burst, when nobody looks.
                address.eq(Cat(Const(0, low_bits), high + 1)),
                left.eq(left - room),
            ]
            with m.If(~fits):
                m.d.sync += self.o.p.words.eq(room)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address >> word_bits),
                left.eq(self.i.p.words),
                active.eq(self.i.p.words != 0),
            ]
        return m


