"""Streams of words and of their parts: a word may be longer than the longest burst."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Gather(wiring.Component):
    """Parts become words, little endian; a word every ``parts`` cycles.

    Parameters
    ----------
    bits : of a part
    parts : of a word, 2 or more

    Members
    -------
    i : In(stream.Signature(bits))
    o : Out(stream.Signature(bits * parts))
    """

    i: Any
    o: Any

    def __init__(self, bits: int, parts: int) -> None:
        self._bits, self._parts = bits, parts
        super().__init__({
            "i": In(stream.Signature(unsigned(bits))),
            "o": Out(stream.Signature(unsigned(bits * parts))),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        word = Signal(self._bits * self._parts, reset_less=True)
        count = Signal(range(self._parts))
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), self.o.payload.eq(word)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            last = count == self._parts - 1
            m.d.sync += [
                word.eq(Cat(word, self.i.payload)[self._bits:]),
                count.eq(count + 1), self.o.valid.eq(last),
            ]
            with m.If(last):
                m.d.sync += count.eq(0)
        return m


class Scatter(wiring.Component):
    """Words become parts, the low end first; a part every cycle.

    Parameters
    ----------
    bits : of a part
    parts : of a word, 2 or more

    Members
    -------
    i : In(stream.Signature(bits * parts))
    o : Out(stream.Signature(bits))
    """

    i: Any
    o: Any

    def __init__(self, bits: int, parts: int) -> None:
        self._bits, self._parts = bits, parts
        super().__init__({
            "i": In(stream.Signature(unsigned(bits * parts))),
            "o": Out(stream.Signature(unsigned(bits))),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        word = Signal(self._bits * self._parts, reset_less=True)
        left = Signal(range(self._parts + 1))
        last = Signal()
        m.d.comb += [
            last.eq(left == 1), self.o.valid.eq(left != 0), self.o.payload.eq(word),
            self.i.ready.eq((left == 0) | (last & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [word.eq(word >> self._bits), left.eq(left - 1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(self.i.payload), left.eq(self._parts)]
        return m
