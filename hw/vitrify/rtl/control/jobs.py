"""Queue of jobs: program, where the next images lie, where their results go, what is to be done."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, ResetInserter, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from vitrify.arch import isa, memmap
from vitrify.arch.csr import QUEUE_DEPTH

_ALIGNED = exact_log2(memmap.ALIGNMENT)
_PAGE = memmap.ADDRESS_BITS - _ALIGNED
#: Pages of ``ALIGNMENT`` bytes where a job's program, input and output begin, the instructions of
#: the program, and the job's tasks.
JOB = data.StructLayout({
    "program": _PAGE, "input": _PAGE, "output": _PAGE, "count": 32,
    "task": data.ArrayLayout(isa.TASK_BITS, isa.TASKS),
})


def page_address(page: Value) -> Value:
    """Byte address of a page."""
    return Cat(Const(0, _ALIGNED), page)


class JobQueue(wiring.Component):
    """First in, first out; never refuses, but says when a job was lost.

    Members
    -------
    push : In(1)
        Take ``job`` in this cycle.
    job : In(JOB)
    clear : In(1)
        Forget all jobs.
    o : Out(stream.Signature(JOB))
    space : Out(range(QUEUE_DEPTH + 1))
        Jobs that still fit.
    overflow : Out(1)
        Pulse: a job was pushed while there was no space, and lost.
    """

    push: Signal
    job: Any
    clear: Signal
    o: Any
    space: Signal
    overflow: Signal

    def __init__(self) -> None:
        super().__init__({
            "push": In(1), "job": In(JOB), "clear": In(1),
            "o": Out(stream.Signature(JOB)),
            "space": Out(range(QUEUE_DEPTH + 1)), "overflow": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        fifo = SyncFIFO(width=JOB.size, depth=QUEUE_DEPTH)
        m.submodules.fifo = ResetInserter(self.clear)(fifo)
        connect(m, fifo.r_stream, flipped(self.o))
        m.d.comb += [
            fifo.w_data.eq(self.job), fifo.w_en.eq(self.push),
            self.space.eq(QUEUE_DEPTH - fifo.level),
        ]
        m.d.sync += self.overflow.eq(self.push & ~fifo.w_rdy)
        return m
