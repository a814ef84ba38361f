"""Queues of rows by expert: counted, placed one behind the other, filled."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import CHOICE, EXPERT_BITS, QUEUE, ROUTE_COMMAND, pipe
from vitrify.rtl.memory.index_memory import queue_write

_START, _COUNT = QUEUE["start"].shape, QUEUE["count"].shape


class RouteQueues(wiring.Component):
    """Two passes: choices are kept and counted as they come, then sorted into the queues.

    The queues of all experts need just ``rows * choices`` entries together, and ``room`` behind
    each: a prefix sum over the counts tells where each begins.  A ROUTE costs twice as many cycles
    as there are experts and one for each choice beside what the choices take to come.  One that
    ``joins`` finds its place where the one before has stopped, and costs as many as choices only.

    Members
    -------
    command : :py:`In(ROUTE_COMMAND)`
        Stands still from ``start`` to ``done``.
    start : :py:`In(1)`
        Forget the old queues, unless the command ``joins`` them.
    ready : :py:`Out(1)`
        Pulse: choices may come.
    choice : :py:`In(pipe(CHOICE))`
        ``command.choices`` of row 0, then of row 1 …
    write : :py:`Out(queue_write(arch))`
    done : :py:`Out(1)`
        Pulse: the queues are written.
    expert, queue : :py:`In(EXPERT_BITS)`, :py:`Out(QUEUE)`
        Where an expert's queue is; one cycle later.  An expert that the ROUTE did not know has
        an empty one, and before the first ROUTE everyone has.
    """

    command: data.View
    start: Signal
    ready: Signal
    choice: wiring.PureInterface
    write: wiring.PureInterface
    done: Signal
    expert: Signal
    queue: data.View

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "command": In(ROUTE_COMMAND), "start": In(1), "ready": Out(1),
            "choice": In(pipe(CHOICE)),
            "write": Out(queue_write(arch)),
            "done": Out(1),
            "expert": In(EXPERT_BITS), "queue": Out(QUEUE),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        command, arrives = self.command, Signal()
        arrived = Signal(CHOICE, reset_less=True)
        m.d.sync += [arrives.eq(self.choice.valid), arrived.eq(self.choice.p)]
        starts, counts, cursors = (
            _Table(m, name, bits, self.arch.experts)
            for name, bits in (("starts", _START), ("counts", _COUNT), ("cursors", _START))
        )
        # Written, then read: one address; left alone, Yosys takes LUTs that no part has.
        m.submodules.kept = kept = Memory(
            shape=CHOICE, depth=self.arch.index_entries, init=[], attrs={"ram_style": "block"}
        )
        keep, kept_read = kept.write_port(), kept.read_port()
        at = Signal.like(keep.addr, reset_less=True)
        expert, last_expert = Signal(range(self.arch.experts)), Signal()
        sums = Signal(_START, reset_less=True)
        before = Signal(_COUNT)             # rows in the queues that are joined
        step = Signal()                     # a choice was kept, or placed
        row, ends = self._rows(m, step)
        have, moves, choice = Signal(), Signal(), data.View(CHOICE, kept_read.data)
        m.d.comb += [
            last_expert.eq(expert == self.arch.experts - 1),
            keep.addr.eq(at), keep.data.eq(arrived),
            kept_read.addr.eq(at), kept_read.en.eq(~have | moves),
            moves.eq(~self.write.valid | self.write.ready),
            counts.read.addr.eq(expert),
            cursors.read.addr.eq(choice.expert),
        ]
        with m.If(self.write.ready):
            m.d.sync += self.write.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [expert.eq(0), at.eq(0), have.eq(0)]
                with m.If(self.start & command.joins):
                    m.next = "JOIN"
                with m.Elif(self.start):
                    m.d.sync += before.eq(0)
                    m.next = "CLEAR"
            with m.State("JOIN"):
                m.d.comb += self.ready.eq(1)
                m.next = "COUNT"
            with m.State("CLEAR"):
                counts.put(m, expert, 0)
                m.d.sync += expert.eq(expert + 1)
                with m.If(last_expert):
                    m.d.comb += self.ready.eq(1)
                    m.d.sync += expert.eq(0)
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.d.comb += counts.read.addr.eq(arrived.expert)
                m.d.sync += sums.eq(command.base)
                with m.If(arrives):
                    counts.put(m, arrived.expert, counts.read.data + 1)
                    m.d.comb += [step.eq(1), keep.en.eq(1)]
                    m.d.sync += at.eq(at + 1)
                    with m.If(ends):
                        m.d.sync += at.eq(0)
                        m.next = "PLACE"
                        with m.If(command.joins):
                            m.next = "FILL"
            with m.State("PLACE"):
                starts.put(m, expert, sums)
                cursors.put(m, expert, sums)
                m.d.sync += [
                    expert.eq(expert + 1), sums.eq(sums + counts.read.data + command.room)
                ]
                with m.If(last_expert):
                    m.next = "FILL"
            with m.State("FILL"):
                with m.If(~have | moves):
                    m.d.sync += [have.eq(1), at.eq(at + 1)]
                with m.If(have & moves):
                    cursors.put(m, choice.expert, cursors.read.data + 1)
                    m.d.comb += step.eq(1)
                    m.d.sync += [
                        self.write.valid.eq(1), self.write.addr.eq(cursors.read.data),
                        self.write.row.eq(before + row), self.write.gate.eq(choice.gate),
                    ]
                    with m.If(ends):
                        m.next = "END"
            with m.State("END"), m.If(~self.write.valid):
                m.d.comb += self.done.eq(1)
                m.d.sync += before.eq(before + command.rows)
                m.next = "IDLE"
        routed = Signal()       # the tables hold anything at power-on
        with m.If(self.done):
            m.d.sync += routed.eq(1)
        m.d.comb += [table.lookup.addr.eq(self.expert) for table in (starts, counts)]
        m.d.sync += [
            self.queue.start.eq(starts.lookup.data),
            self.queue.count.eq(Mux(routed, counts.lookup.data, 0)),
        ]
        return m

    def _rows(self, m: Module, step: Signal) -> tuple[Signal, Signal]:
        """Row of a choice, and whether it is the last of all; goes on with ``step``."""
        row, number = Signal(_COUNT), Signal.like(self.command.choices)
        row_ends, ends = Signal(), Signal()
        m.d.comb += [
            row_ends.eq(number + 1 == self.command.choices),
            ends.eq(row_ends & (row + 1 == self.command.rows)),
        ]
        with m.If(step):
            m.d.sync += number.eq(number + 1)
            with m.If(row_ends):
                m.d.sync += [number.eq(0), row.eq(row + 1)]
            with m.If(ends):
                m.d.sync += row.eq(0)
        return row, ends


class _Table:
    """A number for each expert, in LUT RAM: written at the edge, read in the same cycle."""

    def __init__(self, m: Module, name: str, bits: int, experts: int) -> None:
        memory = Memory(
            shape=unsigned(bits), depth=experts, init=[], attrs={"ram_style": "distributed"}
        )
        m.submodules[name] = memory
        self._write = memory.write_port()
        self.read, self.lookup = (memory.read_port(domain="comb") for _ in range(2))

    def put(self, m: Module, expert: Value, value: Value | int) -> None:
        """Write in this cycle."""
        m.d.comb += [
            self._write.en.eq(1), self._write.addr.eq(expert), self._write.data.eq(value)
        ]
