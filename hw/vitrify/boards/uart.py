"""Bytes on a serial line: eight bits, no parity, one stop bit."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from vitrify.arch.link import WIRE_BITS
from vitrify.rtl.interfaces import pipe

#: Shortest bit in cycles.
MIN_DIVISOR = 4
#: A received byte.
BYTE = unsigned(8)


class UartReceiver(wiring.Component):
    """Line to bytes.

    Parameters
    ----------
    divisor : int
        Cycles of a bit, at least ``MIN_DIVISOR``.

    Members
    -------
    line : In(1)
        Asynchronous, high when idle.
    o : Out(pipe(BYTE))
        A byte, for one cycle; one without its stop bit is dropped.
    """

    line: Signal
    o: Any

    def __init__(self, *, divisor: int) -> None:
        if divisor < MIN_DIVISOR:
            raise ValueError(f"a bit must last at least {MIN_DIVISOR} cycles, not {divisor!r}")
        self.divisor = divisor
        super().__init__({"line": In(1, init=1), "o": Out(pipe(BYTE))})

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.line, line, init=1)
        wait = Signal(range(self.divisor + self.divisor // 2))
        left = Signal(range(WIRE_BITS))
        bits = Signal(8)
        m.d.sync += self.o.valid.eq(0)
        with m.If((left == 0) & ~line):
            # To the middle of the first data bit.
            m.d.sync += [wait.eq(self.divisor + self.divisor // 2 - 2), left.eq(WIRE_BITS - 1)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(left != 0):
            m.d.sync += [wait.eq(self.divisor - 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += [self.o.valid.eq(line), self.o.p.eq(bits)]
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line))
        return m


class UartSender(wiring.Component):
    """Bytes to line.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.

    Members
    -------
    i : In(stream.Signature(8))
    line : Out(1)
    """

    i: Any
    line: Signal

    def __init__(self, *, divisor: int) -> None:
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(BYTE)), "line": Out(1, init=1)})

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        wait, left = Signal(range(self.divisor)), Signal(range(WIRE_BITS + 1))
        bits = Signal(WIRE_BITS - 1, init=-1)
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left == 0):
            m.d.sync += self.line.eq(1)
            with m.If(self.i.valid):
                m.d.sync += [
                    self.line.eq(0), bits.eq(Cat(self.i.payload, 1)),
                    left.eq(WIRE_BITS), wait.eq(self.divisor - 1),
                ]
        with m.Else():
            m.d.sync += wait.eq(Mux(wait == 0, self.divisor - 1, wait - 1))
            with m.If(wait == 0):
                m.d.sync += [Cat(self.line, bits).eq(Cat(bits, 1)), left.eq(left - 1)]
        return m
