"""Words of stationary tiles, of the stream and of the token memory, as the buffer takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl.lib.arith import half_bytes


class TileWords(wiring.Component):
    """A register behind both sources, of which one has a word at most.

    With ``stored_weights`` a word of the buffer is two columns, with ``tile_quads`` four: those of
    STORED tiles are gathered, all others are copies.  Without, a word of nibbles is looked at
    twice.

    Members
    -------
    arrives, lo, hi, stored : :py:`In(1)`, :py:`In(8*K)`, :py:`In(8*K)`, :py:`In(1)`
        A word of the token memory; ``stored``: a pair of words.
    streams, streamed, nibbles, odd : :py:`In(1)`, :py:`In(8*K)`, :py:`In(1)`, :py:`In(1)`
        A word of the stream; the ``nibbles`` of two columns, of which ``odd`` is looked at.
    word : :py:`Out(stream.Signature(arch.tile_bits))`
        A cycle later, or with the second pair; ``ready`` is not looked at.
    """

    arrives: Signal
    lo: Signal
    hi: Signal
    stored: Signal
    streams: Signal
    streamed: Signal
    nibbles: Signal
    odd: Signal
    word: stream.Interface

    def __init__(self, arch: ArchConfig, members: Mapping[str, Any] | None = None) -> None:
        """``members``: further ones."""
        self.arch = arch
        bits = 8 * arch.depth
        super().__init__({
            "arrives": In(1), "lo": In(bits), "hi": In(bits), "stored": In(1),
            "streams": In(1), "streamed": In(bits), "nibbles": In(1), "odd": In(1),
            "word": Out(stream.Signature(unsigned(arch.tile_bits))), **(members or {}),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch, word = self.arch, self.word
        halves = (Mux(self.nibbles, half_bytes(self.streamed, half), self.streamed)
                  for half in (0, 1)) if arch.nibbles else (self.streamed, self.streamed)
        second, whole = self._pairs(m)
        m.d.sync += [
            word.valid.eq((self.arrives & whole) | self.streams),
            word.payload.eq(columns(m, arch, self, second, *halves)),
        ]
        return m

    def _pairs(self, m: Module) -> tuple[Value, Value]:
        """Whether the second pair of a word is due; whether what arrives makes a word whole."""
        if not self.arch.tile_quads:
            return Const(0, 1), Const(1, 1)
        second = Signal()
        m.d.sync += second.eq(second ^ (self.arrives & self.stored))
        return second, ~self.stored | second


def columns(
    m: Module, arch: ArchConfig, source: Any, second: Value, even: Value, odd: Value
) -> Value:
    """What the buffer gets in this cycle: of what ``source`` has, all columns of a word.

    Parameters
    ----------
    source : has ``arrives``, ``lo``, ``hi``, ``stored`` and ``odd``, of words or of a byte of them
    second : with ``tile_quads``: the second pair of a word is due
    even, odd : columns of the stream
    """
    read, streamed = source.lo, Mux(source.odd, odd, even)
    if arch.stored_weights:
        # Without a pair, every column is to find the word.
        read = Cat(source.lo, Mux(source.stored, source.hi, source.lo))
        streamed = Cat(even, odd)
    if arch.tile_quads:
        first = Signal.like(read, reset_less=True)
        with m.If(~second):
            m.d.sync += first.eq(read)
        read, streamed = Cat(Mux(source.stored, first, read), read), Cat(streamed, streamed)
    return Mux(source.arrives, read, streamed)
