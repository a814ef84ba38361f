"""A limit to the time that a job takes."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch.csr import LIMIT_BITS


class Watchdog(wiring.Component):
    """Counts down while a job runs.

    Parameters
    ----------
    unit : cycles of one unit of ``limit``, a power of two

    Members
    -------
    start : In(1)
        A job begins.
    running : In(1)
    limit : In(16)
        Looked at with ``start``; 0: no limit.
    expired : Out(1)
        From ``limit * unit`` cycles of a job on, while it runs.
    """

    start: Signal
    running: Signal
    limit: Signal
    expired: Signal

    def __init__(self, *, unit: int) -> None:
        self._unit_bits = exact_log2(unit)
        super().__init__({
            "start": In(1), "running": In(1), "limit": In(LIMIT_BITS), "expired": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        bits = self._unit_bits + LIMIT_BITS
        left, armed = Signal(bits + 1), Signal()   # below zero in the top bit
        with m.If(self.start):
            m.d.sync += [
                left.eq(Cat(Const(0, self._unit_bits), self.limit)), armed.eq(self.limit != 0),
            ]
        with m.Elif(self.running & ~left[-1]):
            m.d.sync += left.eq(left - 1)
        m.d.sync += self.expired.eq(armed & left[-1] & self.running & ~self.start)
        return m
