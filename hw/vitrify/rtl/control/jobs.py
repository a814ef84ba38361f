"""Queue of jobs: where the next images lie, where their results go, what is to be done."""

from __future__ import annotations

from typing import Any

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch import isa, memmap
from vitrify.arch.csr import QUEUE_DEPTH

#: DRAM addresses of a job's input and output, and its tasks.
JOB = data.StructLayout({
    "input": memmap.ADDRESS_BITS, "output": memmap.ADDRESS_BITS,
    "task": data.ArrayLayout(isa.TASK_BITS, isa.TASKS),
})


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
