"""Epilogue: from drain rows to stored results, statistics and progress."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import NARROW_OUTPUTS, NORM_STATS, Combine, Output, RowScale, Stats
from vitrify.rtl import interfaces
from vitrify.rtl.array.layout import drain_layout
from vitrify.rtl.memory.index_memory import gated_read

from .commit import Commit
from .delay import Delays
from .epilogue_lane import EpilogueLane
from .epilogue_walk import EpilogueWalk
from .gate_scale import GateScale
from .lane_group import group_layout, has_old_address
from .lane_sums import lane_sums, lane_sums_latency
from .params import ParamMemory
from .reciprocal import Reciprocal
from .row_stats import RowStats
from .table import TableMemory

#: Cycle of a request, counted from the one in which its conditions hold.
_REQUEST = 1
#: Bits of a count of lane groups inside the pipeline.
_IN_FLIGHT_BITS = 7
_RECIPROCAL_POST = formats.POST_SHIFTS.index(formats.RECIPROCAL_SHIFT)


class Epilogue(wiring.Component):
    """One lane group (E columns of a row) a cycle, stalled by missing drain rows alone.

    Once a group is taken, nothing stalls it: from the drain memory to the token memory it is a
    pipeline of fixed length.  Some groups wait for their predecessors in it: the first
    of an ADD16 instruction until all results are written (it may add to one of them), the first
    of a Stats.MAX instruction until no LayerNorm is being finished (they share the way to the
    statistics memory), the first of any instruction until its table slot is not being filled, and
    the first of a pass's second c tile, if that has few rows, until statistics are written.

    Columns beyond ``c_last`` in the last lane group store zeros.

    Parameters
    ----------
    arch : ArchConfig
    drain_latency : cycles from ``drain_addr`` to ``drain_data``, at least 2

    Members
    -------
    command : :py:`In(stream.Signature(epilogue_command(arch)))`
    drain_written : :py:`In(DRAIN_PROGRESS)`
    drain_addr, drain_data : :py:`Out(unsigned)`, :py:`In(drain_layout(arch, C))`
    drain_read : :py:`Out(DRAIN_PROGRESS)`
        Rows that may be overwritten.
    sum_addr, sum_data : :py:`Out(unsigned)`, :py:`In(SOFTMAX_SUM_BITS)`
        Row with its bank above; the sum answers one cycle later.
    scale_addr, scale_stat : :py:`Out(unsigned)`, :py:`In(STAT)`
        The same for a sum from the statistics memory, if the core has them.
    param, table : :py:`In(pipe(param_write(arch)))`, :py:`In(pipe(table_write(arch)))`
    residual : :py:`Out(piece_client(arch))`
    result : :py:`Out(write_client(arch))`
        Must be granted at once: ``ready`` is not looked at.
    index : :py:`Out(gated_read(arch))`
    stat : :py:`Out(pipe(stat_write(arch)))`
    mover : :py:`In(MOVER_PROGRESS)`
    progress : :py:`Out(EPILOGUE_PROGRESS)`
        Whoever sees a row may read its results and its statistic in that very cycle.
    busy : :py:`Out(1)`
        Event: a lane group was taken.
    finishes : :py:`Out(1)`
        Event: ``result`` has the last results of an instruction.
    skipped : :py:`Out(SEQ_BITS)`
        MATMULs without rows before the one that ``result`` belongs to, if the core has experts.
    idle : :py:`Out(1)`
        Nothing to do, and everything done is visible.
    """

    command: stream.Interface
    drain_written: data.View
    drain_addr: Signal
    drain_data: data.View
    drain_read: data.View
    sum_addr: Signal
    sum_data: Signal
    scale_addr: Signal
    scale_stat: data.View
    param: wiring.PureInterface
    table: wiring.PureInterface
    residual: wiring.PureInterface
    result: wiring.PureInterface
    index: wiring.PureInterface
    stat: wiring.PureInterface
    mover: data.View
    progress: data.View
    busy: Signal
    finishes: Signal
    skipped: Signal
    idle: Signal

    def __init__(self, arch: ArchConfig, *, drain_latency: int = 2) -> None:
        if drain_latency < 2:
            # The row scale would come too late for the lanes.
            raise ValueError(f"drain_latency must be at least 2, not {drain_latency!r}")
        self.arch = arch
        self.drain_latency = drain_latency
        row_bits = interfaces.index_bits(arch.max_rows)
        super().__init__({
            "command": In(stream.Signature(interfaces.epilogue_command(arch))),
            "drain_written": In(interfaces.DRAIN_PROGRESS),
            "drain_addr": Out(row_bits),
            "drain_data": In(drain_layout(arch, arch.width)),
            "drain_read": Out(interfaces.DRAIN_PROGRESS),
            "sum_addr": Out(row_bits + 1),
            "sum_data": In(formats.SOFTMAX_SUM_BITS),
            **({"scale_addr": Out(interfaces.index_bits(arch.stat_rows)),
                "scale_stat": In(interfaces.STAT)} if arch.row_sums else {}),
            "param": In(interfaces.pipe(interfaces.param_write(arch))),
            "table": In(interfaces.pipe(interfaces.table_write(arch))),
            "residual": Out(interfaces.piece_client(arch)),
            "result": Out(interfaces.write_client(arch)),
            "index": Out(gated_read(arch)),
            "stat": Out(interfaces.pipe(interfaces.stat_write(arch))),
            "mover": In(interfaces.MOVER_PROGRESS),
            "progress": Out(interfaces.EPILOGUE_PROGRESS),
            "busy": Out(1),
            "finishes": Out(1),
            **({"skipped": Out(interfaces.SEQ_BITS)} if arch.experts else {}),
            "idle": Out(1),
        })

    @property
    def lane_cycle(self) -> int:
        """Cycle in which the lanes get their sums (cycle 1: the drain row's address)."""
        return _REQUEST + self.drain_latency + lane_sums_latency(self.arch)

    @property
    def result_cycle(self) -> int:
        """Cycle in which results are written, after that in which a drain row is seen."""
        return self.lane_cycle + EpilogueLane.LATENCY

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.walk = walk = EpilogueWalk(self.arch)
        m.submodules.params = params = ParamMemory(self.arch)
        m.submodules.tables = tables = TableMemory(self.arch)
        m.submodules.reciprocal = reciprocal = Reciprocal()
        m.submodules.stats = stats = RowStats(self.arch)
        m.submodules.commit = commit = Commit(
            max_delay=stats.max_latency, norm_delay=stats.norm_latency
        )
        wiring.connect(m, wiring.flipped(self.command), walk.command)
        wiring.connect(m, walk.index, wiring.flipped(self.index))
        m.d.comb += walk.mover.eq(self.mover)
        wiring.connect(m, wiring.flipped(self.param), params.write)
        wiring.connect(m, wiring.flipped(self.table), tables.write)
        wiring.connect(m, stats.o, wiring.flipped(self.stat))

        self._delays = Delays(m)
        alive = self._take(m, walk, tables, stats, commit)
        self._row_scale(m, reciprocal)
        lanes = self._lanes(m, params, tables)
        self._store(m, lanes)
        self._gather(m, lanes, stats, commit)
        m.d.comb += [
            self.progress.eq(commit.progress),
            self.idle.eq(walk.empty & ~self.command.valid & ~alive),
        ]
        return m

    # Taking groups ------------------------------------------------------------------------------
    def _take(
        self, m: Module, walk: EpilogueWalk, tables: TableMemory, stats: RowStats, commit: Commit
    ) -> Value:
        """The request register, cycle 1; returns whether an instruction is not yet visible."""
        d, group, written = self._delays, walk.o.payload, self.drain_written
        request, waiting = Signal(group_layout(self.arch), reset_less=True), Signal()
        adds, gathers = self._adds(group.output), self._quick(group.stats)
        taken, granted, fire, leaves, stored = (Signal() for _ in range(5))
        # The request counts as under way, so that no counter hangs on the choice of a group.
        gathers_norm = self._normal(request.stats)
        finishes_norm = request.ends & request.last_tile & gathers_norm
        unwritten = self._counter(m, "unwritten", waiting, fire, stored)
        unfinished = self._counter(
            m, "unfinished", waiting & gathers_norm, fire & finishes_norm, stats.norm_leaves)
        alive = self._counter(m, "alive", waiting, fire & request.finishes, commit.ends)

        available = Signal()
        may: Value = walk.o.valid & available
        if self.arch.nibble_tiles > 1:
            recent = Signal()
            may &= ~(group.pauses & recent)
        m.d.comb += [
            # The drain memory holds this c tile or already the next one.
            available.eq((written.tile != group.tile) | (written.row > group.row)),
            leaves.eq(
                may
                & ~(group.starts & ~tables.ready.bit_select(group.table_slot, 1))
                & ~(group.starts & adds & unwritten)
                & ~(group.starts & gathers & unfinished)
            ),
            granted.eq(~self.residual.valid | self.residual.ready),
            fire.eq(waiting & granted),
            taken.eq(leaves & (~waiting | granted)),
            walk.o.ready.eq(taken),
            self.residual.valid.eq(waiting & self._adds(request.output)),
            self.residual.piece.eq(request.piece),
            self.residual.addr.eq(
                request.old_addr if has_old_address(self.arch) else request.addr),
            self.drain_addr.eq(request.row),
            self.sum_addr.eq(Cat(request.row, request.sum_bank)),
        ]
        if self.arch.row_sums:
            m.d.comb += self.scale_addr.eq(request.scale_addr)
        with m.If(taken):
            m.d.sync += request.eq(group)
        with m.If(~waiting | granted):
            m.d.sync += waiting.eq(leaves)

        with m.If(fire & request.ends):
            m.d.sync += self.drain_read.row.eq(self.drain_read.row + 1)
            with m.If(request.tile_ends):
                m.d.sync += [
                    self.drain_read.row.eq(0), self.drain_read.tile.eq(self.drain_read.tile + 1)
                ]
        for name, _ in group_layout(self.arch):
            d.put(name, request[name], _REQUEST)
        d.put("valid", fire, _REQUEST, reset=True)
        if self.arch.nibble_tiles > 1:
            # A group that fires in the next cycle would come too early.
            fired = (d.at("valid", _REQUEST + i) for i in range(1, RowStats.REVISIT - 1))
            m.d.comb += recent.eq(waiting | Cat(fired).any())
        m.d.comb += [
            self.busy.eq(d.at("valid", _REQUEST + 1)),
            stored.eq(d.at("valid", self.result_cycle)),
        ]
        return alive

    def _counter(self, m: Module, name: str, comes: Value, up: Value, down: Value) -> Value:
        """Whether one comes (it may go up), or more went up than came down (a cycle late)."""
        count, under_way = Signal(_IN_FLIGHT_BITS, name=name), Signal(name=f"{name}_under_way")
        m.d.sync += [count.eq(count + up - down), under_way.eq(count.any() | comes)]
        return comes | under_way

    # Choices of an instruction, of those that the core has ----------------------------------------
    def _adds(self, output: Any) -> Value:
        return output.matches(Output.ADD16, *([Output.ADD8] if self.arch.addends else []))

    def _normal(self, stats: Any) -> Value:
        """Mean and deviation are gathered."""
        return stats.matches(*NORM_STATS) if self.arch.row_sums else stats == Stats.NORM

    def _quick(self, stats: Any) -> Value:
        """What is gathered needs no more than a maximum does."""
        quick = (Stats.MAX, Stats.SUM) if self.arch.row_sums else (Stats.MAX,)
        return stats.matches(*quick)

    # Lanes --------------------------------------------------------------------------------------
    def _row_scale(self, m: Module, reciprocal: Reciprocal) -> None:
        d, at = self._delays, _REQUEST + 1
        scaled = d.at("row_scale", 1).any()
        total = self.sum_data
        if self.arch.row_sums:
            stored = Cat(self.scale_stat.mean, self.scale_stat.shift)
            total = Mux(d.at("row_scale", at) == RowScale.STATISTIC, stored, total)
        d.put("scaled", scaled, 1)
        m.d.comb += [
            reciprocal.total.eq(total),
            reciprocal.fixed.eq(~d.at("scaled", at + 1)),
            reciprocal.fixed_shift.eq(d.at("pre_shift", at + 1)),
        ]
        d.put("shift", reciprocal.pre_shift, at + reciprocal.SHIFT_LATENCY)
        d.put("scale", reciprocal.multiplier, at + reciprocal.LATENCY)
        d.put("post", Mux(scaled, _RECIPROCAL_POST, d.at("post_shift", 1)), 1)

    def _lanes(self, m: Module, params: ParamMemory, tables: TableMemory) -> list[Value]:
        """The values of a lane group, in ``result_cycle``."""
        d, arch, at, lanes = self._delays, self.arch, self.lane_cycle, []
        d.put("narrow", d.at("output", 1).matches(*NARROW_OUTPUTS), 1)
        acc = lane_sums(m, arch, self.drain_data, d, _REQUEST + self.drain_latency)
        residual = self._old_values(m, at + 10)
        d.put("looks_up", d.at("activation", 1) & d.at("narrow", 1), 1)
        d.put("keep", Cat(*(
            d.at("lane_last", at + 10) >= lane for lane in range(arch.lanes)
        )), at + 10)
        own_at = at + 4 - (GateScale.LATENCY if arch.experts else 0)
        for address, cycle in ((params.bias_at, at), (params.multiplier_at, own_at)):
            cycle -= params.LATENCY
            m.d.comb += [
                address.slot.eq(d.at("tile", cycle)), address.group.eq(d.at("group", cycle))
            ]
        bits = formats.ACC_BITS
        for i in range(arch.lanes):
            m.submodules[f"lane{i}"] = lane = EpilogueLane(
                requant_bits=arch.requant_bits, adds=arch.addends, compares=arch.patterns)
            own = Mux(d.at("weights", own_at), params.multiplier[i], d.at("multiplier", own_at))
            if arch.experts:
                m.submodules[f"gate{i}"] = gate = GateScale(fabric=arch.fabric_multipliers)
                m.d.comb += [gate.multiplier.eq(own), gate.weight.eq(d.at("gate", own_at))]
                own = gate.o
            m.d.comb += [
                lane.acc.eq(acc[bits * i : bits * (i + 1)].as_signed()),
                lane.bias.eq(Mux(d.at("weights", at), params.bias[i], 0)),
                lane.pre_shift.eq(d.at("shift", at + 1)),
                lane.multiplier.eq(Mux(d.at("scaled", at + 4), d.at("scale", at + 4), own)),
                lane.post_shift.eq(d.at("post", at + 5)),
                lane.narrow.eq(d.at("narrow", at + 8)),
                tables.at[i].eq(Cat(lane.index, d.at("table_slot", at + lane.INDEX))),
                lane.residual.eq(residual.word_select(i, formats.RESIDUAL_BITS)),
                lane.use_table.eq(d.at("looks_up", at + 11)),
                lane.table.eq(tables.value[i]),
                lane.keep.eq(d.at("keep", at + 11)[i]),
            ]
            if arch.addends:
                old = d.at("old", at + 5).word_select(2 * i, 8).as_signed()
                m.d.comb += lane.addend.eq(Mux(d.at("adds_early", at + 5), old, 0))
            if arch.patterns:
                m.d.comb += lane.largest.eq(d.at("largest", at + 10))
            lanes.append(lane.value)
        return lanes

    def _old_values(self, m: Module, cycle: int) -> Value:
        """What an ADD16 adds to, or a maximum is taken with; zero for the others, in ``cycle``."""
        d, old, arrives = self._delays, self.residual, _REQUEST + interfaces.PIECE_LATENCY
        values = []
        for lane in range(self.arch.lanes):
            low, high = (half.word_select(lane, 8) for half in (old.lo, old.hi))
            if self.arch.addends:
                # Of ADD8 one byte, extended.
                narrow = d.at("narrow", arrives)
                low = Mux(narrow & d.at("old_high", arrives), high, low)
                high = Mux(narrow, low[-1].replicate(8), high)
            values += [low, high]
        d.put("old", Cat(*values), arrives)
        largest: Value = Const(0, 1)
        if self.arch.patterns:
            largest = (d.at("combine", 1) == Combine.MAX) & self._adds(d.at("output", 1))
        d.put("largest", largest, 1)
        d.put("adds_early", (d.at("output", 1) == Output.ADD8) & ~largest, 1)
        d.put("adds", self._adds(d.at("output", 1)) & ~d.at("adds_early", 1), 1)
        values = Signal(formats.RESIDUAL_BITS * self.arch.lanes, name="old_values", reset_less=True)
        m.d.sync += values.eq(Mux(d.at("adds", cycle - 1), d.at("old", cycle - 1), 0))
        return values

    # Results ------------------------------------------------------------------------------------
    def _store(self, m: Module, lanes: list[Value]) -> None:
        d, at, result = self._delays, self.result_cycle, self.result
        pieces = self.arch.depth // self.arch.lanes
        low, high = Cat(*(value[:8] for value in lanes)), Cat(*(value[8:] for value in lanes))
        where = self.arch, d.at("addr", at - 1), ~d.at("narrow", at - 1)
        d.put("pair", interfaces.bank_pair(*where), at - 1)
        d.put("banks", interfaces.bank_choice(*where), at - 1)
        d.put("mask", Cat(*(d.at("piece", at - 1) == i for i in range(pieces))), at - 1)
        m.d.comb += [
            result.valid.eq(d.at("valid", at)),
            result.wide.eq(~d.at("narrow", at)),
            result.addr.eq(d.at("addr", at)),
            result.pair.eq(d.at("pair", at)), result.banks.eq(d.at("banks", at)),
            result.mask.eq(d.at("mask", at)),
            result.lo.eq(low.replicate(pieces)),
            result.hi.eq(Mux(result.wide, high, low).replicate(pieces)),
        ]

    def _gather(self, m: Module, lanes: list[Value], stats: RowStats, commit: Commit) -> None:
        d, at, group, row = self._delays, self.result_cycle, stats.i.p, commit.i.p
        m.d.comb += [
            stats.i.valid.eq(d.at("valid", at)),
            group.values.eq(Cat(*lanes)),
            group.keep.eq(d.at("keep", at)),
            group.addr.eq(d.at("stat_addr", at)),
            *(group[name].eq(d.at(name, at)) for name in (
                "row", "stats", "begins", "ends", "first_tile", "last_tile", "inv_dim",
                "inv_shift", "epsilon")),
            commit.i.valid.eq(d.at("valid", at) & d.at("ends", at)),
            row.wait.eq(Mux(d.at("last_tile", at), Cat(
                self._quick(d.at("stats", at)), self._normal(d.at("stats", at))), 0)),
            row.last_tile.eq(d.at("last_next", at)),
            row.tile_ends.eq(d.at("tile_ends", at)),
            row.ends.eq(d.at("finishes", at)),
            self.finishes.eq(d.at("valid", at) & d.at("finishes", at)),
        ]
        if self.arch.experts:
            m.d.comb += self.skipped.eq(d.at("skipped", at))
