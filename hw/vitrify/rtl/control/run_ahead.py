"""Keep sequence numbers comparable: bound how far one kind of instruction overtakes another."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.rtl.interfaces import SEQ_BITS

#: Instructions between two checks.
WINDOW = 32


class RunAhead(wiring.Component):
    """Let instructions A be dispatched while no much older instruction B is unfinished.

    Sequence numbers have ``SEQ_BITS`` bits and are compared by signed difference, which is right
    only while everything in flight lies within half their range.  The queues bound how many B
    wait, but not how many A pass one slow B.  So after every ``WINDOW`` A, all B dispatched
    before the previous such moment must have finished: no B sees more than ``2 * WINDOW`` A pass.

    Members
    -------
    advance : In(1)
        An A is dispatched in this cycle; only while ``ready``.
    issued : In(SEQ_BITS)
        Number that the next B will get.
    done : In(SEQ_BITS)
        B finished; counts up in steps of one.
    ready : Out(1)
    """

    advance: Signal
    issued: Signal
    done: Signal
    ready: Signal

    def __init__(self) -> None:
        super().__init__({
            "advance": In(1), "issued": In(SEQ_BITS), "done": In(SEQ_BITS), "ready": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        count = Signal(range(WINDOW))
        mark = Signal(SEQ_BITS)
        waiting = Signal()
        boundary = Signal()
        m.d.comb += [
            boundary.eq(count == WINDOW - 1),
            self.ready.eq(~(waiting & boundary)),
        ]
        with m.If(self.done == mark):
            m.d.sync += waiting.eq(0)
        with m.If(self.advance):
            m.d.sync += count.eq(count + 1)
            with m.If(boundary):
                m.d.sync += [mark.eq(self.issued), waiting.eq(1)]
        return m
