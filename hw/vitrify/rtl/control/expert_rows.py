"""Rows and lists of a MATMUL: its own, or those of an expert's queue."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.rtl.interfaces import QUEUE, ROW_BITS, matmul_bits

_ROWS, _LIST = ROW_BITS, matmul_bits("src_list_base")
#: What an expert's queue replaces.
ROWS = data.StructLayout({"rows": _ROWS, "src_list_base": _LIST, "dst_list_base": _LIST})


class ExpertRows(wiring.Component):
    """At most ``own.rows`` entries of a queue, from its entry ``first`` on.

    Members
    -------
    own : :py:`In(ROWS)`
    use : :py:`In(1)`
        Take the queue's.
    first, queue : :py:`In(unsigned)`, :py:`In(QUEUE)`
    o : :py:`Out(ROWS)`
        :attr:`LATENCY` cycles later; one cycle if not ``use``.
    empty : :py:`Out(1)`
        As late as ``o``: there is no entry.
    """

    #: Cycles from the queue to the rows.
    LATENCY = 2

    own: Any
    use: Signal
    first: Signal
    queue: Any
    o: Any
    empty: Signal

    def __init__(self) -> None:
        super().__init__({
            "own": In(ROWS), "use": In(1), "first": In(_ROWS), "queue": In(QUEUE),
            "o": Out(ROWS), "empty": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        left = self.queue.count - self.first
        rest = Signal(left.shape(), reset_less=True)        # negative: none
        start = Signal(_LIST, reset_less=True)
        m.d.sync += [rest.eq(left), start.eq(self.queue.start + self.first)]
        m.d.sync += [
            self.empty.eq(rest <= 0),
            self.o.rows.eq(Mux(self.use & (rest < self.own.rows), rest, self.own.rows)),
            self.o.src_list_base.eq(Mux(self.use, start, self.own.src_list_base)),
            self.o.dst_list_base.eq(Mux(self.use, start, self.own.dst_list_base)),
        ]
        return m
