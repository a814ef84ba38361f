"""Gate logits from the token memory, a few of them a cycle."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces
from vitrify.rtl.interfaces import ROUTE_COMMAND, ROUTE_LANES, ROUTE_LOGITS

from .delay import Delays, select, select_latency

#: Rows that are read before the first is released.
ROWS_AHEAD = 4
_LANE_BITS = exact_log2(ROUTE_LANES)


class RouteReader(wiring.Component):
    """Reads every row of logits once, in order; ``ROUTE_LANES`` experts of a row a cycle.

    Between the last logits of a row and the next logits there is an empty cycle at least, and
    from last to last there are ``2 * choices + 2`` cycles or more (at least ``MAX_CHOICES``): what
    follows keeps up with that, and needs no way to say no.  ``ROWS_AHEAD`` rows are read before
    one is released.

    Members
    -------
    command : :py:`In(ROUTE_COMMAND)`
        Stands still from ``start`` to the last logits.
    start : :py:`In(1)`
        Begin in the next cycle.
    release : :py:`In(1)`
        The oldest row is not needed any more.
    read : :py:`Out(read_client(arch))`
    o : :py:`Out(pipe(ROUTE_LOGITS))`
    """

    command: data.View
    start: Signal
    release: Signal
    read: wiring.PureInterface
    o: wiring.PureInterface

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "command": In(ROUTE_COMMAND), "start": In(1), "release": In(1),
            "read": Out(interfaces.read_client(arch)),
            "o": Out(interfaces.pipe(ROUTE_LOGITS)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        # A word may be longer than all the logits that there can be.
        piece_bits = exact_log2(min(self.arch.depth, formats.MAX_EXPERTS) // ROUTE_LANES)
        command, read = self.command, self.read
        row_addr = Signal(interfaces.ADDR_BITS, reset_less=True)
        left = Signal.like(command.rows)                        # rows not yet begun or finished
        group = Signal(ROUTE_LOGITS["group"].shape)
        ahead = Signal(range(ROWS_AHEAD + 1))                   # rows read and not released
        spacing = Signal(range(2 * formats.MAX_CHOICES + 1))
        asked = Signal(data.StructLayout({"group": group.shape(), "last": 1}), reset_less=True)
        last, issue, begins, granted = (Signal() for _ in range(4))
        experts_last = Signal(interfaces.EXPERT_BITS)
        m.d.comb += [
            experts_last.eq(command.experts - 1),
            last.eq(group == experts_last[_LANE_BITS:]),
            granted.eq(read.valid & read.ready),
            issue.eq(
                (left != 0)
                & (~read.valid | (read.ready & ~asked.last))
                & ((group != 0) | (ahead != ROWS_AHEAD))
                & (~last | (spacing == 0))
            ),
            begins.eq(issue & (group == 0)),
            read.wide.eq(1),
        ]
        m.d.sync += [
            ahead.eq(ahead + begins - self.release),
            spacing.eq(Mux(
                granted & asked.last, Cat(0, command.choices), spacing - (spacing != 0)
            )),
        ]
        with m.If(read.ready):
            m.d.sync += read.valid.eq(0)
        with m.If(issue):
            m.d.sync += [
                read.valid.eq(1), read.addr.eq(row_addr + group[piece_bits:]),
                asked.group.eq(group), asked.last.eq(last), group.eq(group + 1),
            ]
            with m.If(last):
                m.d.sync += [
                    group.eq(0), left.eq(left - 1), row_addr.eq(row_addr + command.src_stride)
                ]
        with m.If(self.start):
            m.d.sync += [left.eq(command.rows), row_addr.eq(command.src_addr)]
        self._deliver(m, granted, asked, experts_last, piece_bits)
        return m

    def _deliver(
        self, m: Module, granted: Signal, asked: data.View, experts_last: Signal, piece_bits: int
    ) -> None:
        d, read = Delays(m), self.read
        d.put("valid", granted, 0, reset=True)
        d.put("group", asked.group, 0)
        d.put("last", asked.last, 0)
        pieces = [
            Cat(*(
                half.word_select(ROUTE_LANES * piece + lane, 8)
                for lane in range(ROUTE_LANES) for half in (read.lo, read.hi)
            ))
            for piece in range(1 << piece_bits)
        ]
        first = interfaces.READ_LATENCY
        at = first + select_latency(len(pieces))
        logits = select(
            m, pieces, lambda step: d.at("group", first + step)[:piece_bits], "logits"
        )
        final, out = d.at("last", at), self.o.p
        m.d.comb += [
            self.o.valid.eq(d.at("valid", at)),
            out.logits.eq(logits), out.group.eq(d.at("group", at)), out.last.eq(final),
            out.lanes.eq(Cat(*(
                ~final | (experts_last[:_LANE_BITS] >= lane) for lane in range(ROUTE_LANES)
            ))),
        ]
