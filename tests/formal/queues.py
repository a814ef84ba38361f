"""Harness of the experts' queues, with choices that come and writes that are taken at any time."""

from __future__ import annotations

import dataclasses

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from tests.formal.bus import SMALL
from vitrify.rtl.interfaces import EXPERT_BITS, GATE
from vitrify.rtl.units import route_queues

#: Two experts, queues of up to four rows together.
ROUTED = dataclasses.replace(SMALL, experts=2)


class QueuesHarness(wiring.Component):
    """Every choice is an entry of its expert's queue, in the order of the rows, and nothing else.

    One choice, any one, is followed; all are counted.
    """

    def __init__(self, module=route_queues):
        self._module = module
        super().__init__({
            "begin": In(1), "base": In(2), "rows": In(1), "choices": In(1), "which": In(2),
            "valid": In(1), "expert": In(EXPERT_BITS), "gate": In(GATE.size), "ready": In(1),
            "query": In(1),
        })

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._module.RouteQueues(ROUTED)
        command = dut.command
        running, started, opened, routed = Signal(), Signal(), Signal(), Signal()
        base, rows, choices, total = Signal(2), Signal(2), Signal(2), Signal(3)
        m.d.comb += [
            command.base.eq(base), command.rows.eq(rows), command.choices.eq(choices),
            total.eq(Mux(rows == 2, choices << 1, choices)),
            dut.start.eq(running & ~started), dut.write.ready.eq(self.ready),
            dut.expert.eq(self.query),
        ]
        # What came so far: choices, those of either expert, and the followed one.
        came, of = Signal(3), [Signal(3, name=f"of_{i}") for i in range(2)]
        which, known, seen, written = Signal(2), Signal(), Signal(), Signal(3)
        mine = {
            "expert": Signal(), "gate": Signal.like(self.gate), "row": Signal(), "rank": Signal(3),
        }
        row, number = Signal(), Signal(2)
        comes = opened & self.valid & (came != total)
        m.d.comb += [
            dut.choice.valid.eq(comes), dut.choice.p.expert.eq(self.expert),
            dut.choice.p.gate.eq(self.gate), Assume(self.expert < ROUTED.experts),
        ]
        with m.If(~running & self.begin):
            m.d.sync += [
                running.eq(1), started.eq(0), opened.eq(0), came.eq(0), of[0].eq(0), of[1].eq(0),
                base.eq(self.base), rows.eq(self.rows + 1), choices.eq(self.choices + 1),
                which.eq(self.which), known.eq(0), seen.eq(0), written.eq(0), row.eq(0),
                number.eq(0),
            ]
        with m.If(dut.start):
            m.d.sync += started.eq(1)
        with m.If(dut.ready):
            m.d.sync += opened.eq(1)
        with m.If(comes):
            m.d.sync += [came.eq(came + 1), number.eq(number + 1)]
            with m.If(number + 1 == choices):
                m.d.sync += [number.eq(0), row.eq(1)]
            with m.If(came == which):
                m.d.sync += [
                    known.eq(1), mine["expert"].eq(self.expert), mine["gate"].eq(self.gate),
                    mine["row"].eq(row), mine["rank"].eq(Mux(self.expert, of[1], of[0])),
                ]
            with m.If(self.expert):
                m.d.sync += of[1].eq(of[1] + 1)
            with m.Else():
                m.d.sync += of[0].eq(of[0] + 1)
        # Queues lie one behind the other.
        starts = (base, base + of[0])
        place = Mux(mine["expert"], starts[1], starts[0]) + mine["rank"]
        with m.If(dut.write.valid):
            m.d.comb += [
                Assert(came == total), Assert(dut.write.addr >= base),
                Assert(dut.write.addr < base + total),
            ]
            with m.If(known & (dut.write.addr == place)):
                m.d.comb += [
                    Assert(dut.write.row == mine["row"]),
                    Assert(dut.write.gate.as_value() == mine["gate"]), Assert(~seen),
                ]
                with m.If(self.ready):
                    m.d.sync += seen.eq(1)
            with m.If(self.ready):
                m.d.sync += written.eq(written + 1)
        with m.If(dut.done):
            m.d.sync += [running.eq(0), routed.eq(1)]
            m.d.comb += [
                Assert(running & started), Assert(written == total), Assert(seen | ~known),
            ]
        # Asked a cycle ago, of queues that stand.
        asked, stands = Signal(), Signal()
        m.d.sync += [asked.eq(self.query), stands.eq(~running & ~self.begin & routed)]
        with m.If(stands):
            m.d.comb += [
                Assert(dut.queue.count == Mux(asked, of[1], of[0])),
                Assert(dut.queue.start == Mux(asked, starts[1], starts[0])),
            ]
        with m.If(~routed):
            m.d.comb += Assert(dut.queue.count == 0)
        return m
