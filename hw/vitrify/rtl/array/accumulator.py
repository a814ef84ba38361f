"""Accumulators: partial sums in the work memory, finished rows in the drain memory."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import DRAIN_PROGRESS, MIN_PASS, index_bits, pipe, sums_layout


class Accumulator(wiring.Component):
    """Adds the dot products of a row over the k tiles.

    A row tagged ``first`` starts from zero; a row tagged ``last`` goes to the drain memory,
    every other to the work memory.  One row a cycle; the same row may recur after
    :attr:`recurrence` cycles (the fetch keeps ``MIN_PASS``).

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    i : In(pipe(sums_layout))
        Dot products, rows of a tile in order.
    drain_addr : In(row)
        Row of the drain memory to read.
    drain_data : Out(C x signed(ACC_BITS))
        Its content, :attr:`drain_latency` cycles later.
    drain_written : Out(DRAIN_PROGRESS)
        c tile in progress and rows of it that a read started in this cycle finds written.
    """

    i: wiring.PureInterface
    drain_addr: Signal
    drain_data: data.View
    drain_written: data.View

    #: Cycles from ``drain_addr`` to ``drain_data``.
    drain_latency = 2
    #: Cycles after which a row may come again.
    recurrence = 4
    #: Cycles from ``i`` to ``drain_written`` counting the row.
    latency = 4

    def __init__(self, arch: ArchConfig) -> None:
        assert self.recurrence <= MIN_PASS
        self._arch = arch
        self._sums = data.ArrayLayout(signed(formats.ACC_BITS), arch.width)
        super().__init__({
            "i": In(pipe(sums_layout(arch))),
            "drain_addr": In(index_bits(arch.max_rows)),
            "drain_data": Out(self._sums),
            "drain_written": Out(DRAIN_PROGRESS),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        arch = self._arch
        width = arch.width * formats.ACC_BITS
        m.submodules.work = work = Memory(shape=unsigned(width), depth=arch.max_rows, init=[])
        m.submodules.drain = drain = Memory(shape=unsigned(width), depth=arch.max_rows, init=[])
        work_read, work_write = work.read_port(), work.write_port()
        drain_read, drain_write = drain.read_port(), drain.write_port()

        # 1: read the partial sum; 2: into the memory's output register; 3: add; 4: write.
        m.d.comb += work_read.addr.eq(self.i.p.tag.row)
        stages = []
        valid, row = self.i.valid, self.i.p
        for stage in (1, 2):
            staged_valid = Signal(name=f"valid_{stage}")
            staged = Signal(sums_layout(arch), name=f"row_{stage}", reset_less=True)
            m.d.sync += [staged_valid.eq(valid), staged.eq(row)]
            valid, row = staged_valid, staged
            stages.append(row)
        old = Signal(self._sums, reset_less=True)
        m.d.sync += old.eq(work_read.data)

        total = Signal(width, reset_less=True)
        tag = Signal.like(row.tag.as_value(), name="tag_3", reset_less=True)
        done = data.View(stages[-1].tag.shape(), tag)
        valid_3 = Signal()
        m.d.sync += [
            valid_3.eq(valid),
            tag.eq(row.tag.as_value()),
            total.eq(Cat(
                (row.data[c] + Mux(row.tag.first, 0, old[c]))[: formats.ACC_BITS]
                for c in range(arch.width)
            )),
        ]
        m.d.comb += [
            work_write.addr.eq(done.row), work_write.data.eq(total),
            work_write.en.eq(valid_3 & ~done.last),
            drain_write.addr.eq(done.row), drain_write.data.eq(total),
            drain_write.en.eq(valid_3 & done.last),
        ]
        progress = self.drain_written
        with m.If(valid_3 & done.last):
            m.d.sync += progress.row.eq(done.row + 1)
            with m.If(done.final):
                m.d.sync += [progress.tile.eq(progress.tile + 1), progress.row.eq(0)]

        m.d.comb += drain_read.addr.eq(self.drain_addr)
        m.d.sync += self.drain_data.eq(drain_read.data)
        return m
