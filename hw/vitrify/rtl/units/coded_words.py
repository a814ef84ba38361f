"""Words of stationary tiles, as the buffer takes them, of a core with trellis-coded weights."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import trellis
from vitrify.arch.config import ArchConfig
from vitrify.rtl.lib.shared import place

from .tile_words import TileWords, columns


class CodedByte(wiring.Component):
    """A byte of the words: of all columns that a word of the buffer has.

    A code becomes a level by itself and by the lowest bits of the two before it, of which it keeps
    those for the next word: each bit of a level is a table of six inputs.

    Members
    -------
    arrives, stored, nibbles, odd : :py:`In(1)`
        As in :class:`CodedWords`.
    lo, hi, streamed : :py:`In(8)`
        The byte of these words.
    second : :py:`In(1)`
        With ``tile_quads``: the second pair of a word arrives.
    taken : :py:`In(1)`
        ``streamed`` is a word of nibbles that is looked at for the last time.
    restart : :py:`In(1)`
        The next word is the first one of a tile.
    columns : :py:`Out(8*n)`
        The byte of each of ``n`` columns, a cycle later.
    """

    arrives: Signal
    lo: Signal
    hi: Signal
    stored: Signal
    second: Signal
    streamed: Signal
    nibbles: Signal
    odd: Signal
    taken: Signal
    restart: Signal
    columns: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "arrives": In(1), "lo": In(8), "hi": In(8), "stored": In(1), "second": In(1),
            "streamed": In(8), "nibbles": In(1), "odd": In(1), "taken": In(1), "restart": In(1),
            "columns": Out(arch.tile_bits // arch.depth),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        code, other, before = self.streamed[:4], self.streamed[4:], Signal(2)
        with m.If(self.taken):
            m.d.sync += before.eq(Cat(other[0], code[0]))
        with m.If(self.restart):
            m.d.sync += before.eq(0)
        levels = _level(code, before), _level(other, Cat(code[0], before[0]))
        even, odd = (Mux(self.nibbles, level, self.streamed) for level in levels)
        m.d.sync += self.columns.eq(columns(m, self.arch, self, self.second, even, odd))
        return m


def _level(code: Value, state: Value) -> Value:
    """The level of a code, as a signed byte."""
    levels = [int(level) for row in trellis.LEVELS for level in row]
    tables = (sum((level >> bit & 1) << i for i, level in enumerate(levels))
              for bit in range(trellis.LEVEL_BITS))
    bits = [Const(table, len(levels)).bit_select(Cat(code, state), 1) for table in tables]
    return Cat(bits, bits[-1].replicate(8 - len(bits)))


class CodedWords(TileWords):
    """The same with nibbles that are codes of :mod:`vitrify.arch.trellis`.

    Byte by byte: the bytes of a word have nothing to do with each other.

    Members
    -------
    restart : :py:`In(1)`
        The next word of nibbles is the first one of a tile.
    """

    restart: Signal

    def __init__(self, arch: ArchConfig) -> None:
        super().__init__(arch, {"restart": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        arch, word, taken = self.arch, self.word, Signal()
        parts = place(m, platform, lambda: CodedByte(arch), name="vitrify_coded_byte",
                      count=arch.depth)
        second, whole = self._pairs(m)
        m.d.comb += taken.eq(self.streams & self.nibbles & (self.odd | arch.stored_weights))
        for at, part in enumerate(parts):
            m.d.comb += [
                part.arrives.eq(self.arrives), part.stored.eq(self.stored),
                part.nibbles.eq(self.nibbles), part.odd.eq(self.odd), part.second.eq(second),
                part.taken.eq(taken), part.restart.eq(self.restart),
                part.lo.eq(self.lo.word_select(at, 8)), part.hi.eq(self.hi.word_select(at, 8)),
                part.streamed.eq(self.streamed.word_select(at, 8)),
            ]
        m.d.comb += word.payload.eq(Cat(
            part.columns.word_select(column, 8)
            for column in range(arch.tile_bits // (8 * arch.depth)) for part in parts
        ))
        m.d.sync += word.valid.eq((self.arrives & whole) | self.streams)
        return m
