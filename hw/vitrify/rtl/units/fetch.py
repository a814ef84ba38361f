"""Row fetch: streams rows of the token memory past each stationary tile."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import WIDE_TRANSFORMS, RowScale, Transform
from vitrify.rtl import interfaces
from vitrify.rtl.lib.skid import Skid
from vitrify.rtl.memory.index_memory import ENTRY_BITS, index_read

from .row_loops import RowLoops, enter, instruction_layout, row_layout

#: Events of a cycle without a row, in the order in which the blame is given.
STALLS = ("tile", "dependency", "drain", "bank", "empty")

_SEQ = interfaces.SEQ_BITS
_LIST_BITS = interfaces.matmul_bits("src_list_base")
#: Instructions in flight: one whose rows are generated, one whose rows are issued.
_SLOTS = 2
#: Cycles from an issued row to the end of its gain read, and one to spare.
_PROGRESS_DELAY = 1 + interfaces.READ_LATENCY



class Fetch(wiring.Component):
    """Address generation, waiting and tagging: one row a cycle.

    For c tile, for k tile, for row.  Nothing that has been issued is ever stalled.  The next
    instruction is prefetched: with nothing to wait for there is no bubble between passes, tiles
    and instructions (passes of fewer than ``MIN_PASS`` rows are stretched to that, not counting
    cycles in which a row had to wait: a row never follows itself within ``MIN_PASS`` cycles).

    Everything a row waits for stays true once it is, so that the request is a register: a row
    whose conditions hold in one cycle is requested in the next.

    Members
    -------
    command : :py:`In(stream.Signature(fetch_command(arch)))`
    read : :py:`Out(fetch_client(arch))`
    index : :py:`Out(index_read(arch))`
    stat_addr : :py:`Out(unsigned)`
        Statistics entry; ``stat`` answers one cycle later.
    gain_write : :py:`In(pipe(gain_write(arch)))`
    o : :py:`Out(pipe(transform_input(arch)))`
        ``READ_LATENCY`` cycles after the granted request.
    tile_ready : :py:`In(1)`
        A stationary tile is loaded, or will be before a row issued now reaches it.
    tile_take : :py:`Out(1)`
        The first row of a pass was issued in the previous cycle.
    epilogue, mover : :py:`In(EPILOGUE_PROGRESS)`, :py:`In(MOVER_PROGRESS)`
    drain_read : :py:`In(DRAIN_PROGRESS)`
        Rows that the epilogue has read.
    progress : :py:`Out(FETCH_PROGRESS)`
        Instructions before ``seq`` read nothing any more, gains included.
    row : :py:`Out(1)`
        Event: a row was issued.
    stall : :py:`Out(StructLayout)`
        Events, one for each of :data:`STALLS`.  Exactly one of them and ``row`` is set in every
        cycle.  Waiting for the end of a stretched pass counts as ``tile``.
    idle : :py:`Out(1)`
        No instruction is in here.
    """

    command: stream.Interface
    read: wiring.PureInterface
    index: wiring.PureInterface
    stat_addr: Signal
    stat: data.View
    gain_write: wiring.PureInterface
    o: wiring.PureInterface
    tile_ready: Signal
    tile_take: Signal
    epilogue: data.View
    mover: data.View
    drain_read: data.View
    progress: data.View
    row: Signal
    stall: data.View
    idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._command = interfaces.fetch_command(arch)
        super().__init__({
            "command": In(stream.Signature(self._command)),
            "read": Out(interfaces.fetch_client(arch)),
            "index": Out(index_read(arch)),
            "stat_addr": Out(interfaces.index_bits(arch.stat_rows)),
            "stat": In(interfaces.STAT),
            "gain_write": In(interfaces.pipe(interfaces.gain_write(arch))),
            "o": Out(interfaces.pipe(interfaces.transform_input(arch))),
            "tile_ready": In(1),
            "tile_take": Out(1),
            "epilogue": In(interfaces.EPILOGUE_PROGRESS),
            "mover": In(interfaces.MOVER_PROGRESS),
            "drain_read": In(interfaces.DRAIN_PROGRESS),
            "progress": Out(interfaces.FETCH_PROGRESS),
            "row": Out(1),
            "stall": Out(data.StructLayout(dict.fromkeys(STALLS, 1))),
            "idle": Out(1),
        })
        self._row = row_layout(arch)
        slot = data.StructLayout({
            **self._command.members, "loops": instruction_layout(arch),
            "list_base": _LIST_BITS, "dep_seq": _SEQ, "load": _SEQ, "sum_bank": 1, "wide": 1,
        })
        self._slots = Signal(data.ArrayLayout(slot, _SLOTS), reset_less=True)
        #: Slots whose rows are still to be generated, and to be issued.
        self._fresh = Signal(_SLOTS)
        self._full = Signal(_SLOTS)
        #: The row pipeline moves, up to the request.
        self._advance = Signal()

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._accept(m)
        self._flags(m)
        row, valid = self._generate(m)
        row, valid = self._stage(m, row, valid, "index")
        command = self._slots[row.slot]
        number: Value = Mux(command.src_list, self.index.data, self._place(row))
        if self.arch.patterns:
            # Something is read in any case, from where there is something.
            number = Mux(row.outside, 0, number)
        row_id = self._register(m, number, ENTRY_BITS)
        word = self._register(m, command.src_addr + row.word, interfaces.ADDR_BITS)
        stat: Value = command.stat_src
        if self.arch.patterns:
            stat = stat + row.stat_base
        stat = self._register(m, stat, _LIST_BITS)
        stride = self._register(m, command.src_stride, len(command.src_stride))
        row, valid = self._stage(m, row, valid, "factors")
        product = self._register(m, row_id * stride, interfaces.ADDR_BITS)
        further = row.base if self.arch.patterns else 0
        word = self._register(m, word + further, interfaces.ADDR_BITS)
        stat = self._register(m, stat + row_id, len(self.stat_addr))
        row, valid = self._stage(m, row, valid, "product")
        # The arbiter's answer reaches no further than the request.
        m.submodules.found = found = Skid(data.StructLayout({
            "row": self._row, "addr": interfaces.ADDR_BITS, "wide": 1, "pair": len(self.read.pair),
            "stat": len(stat),
        }))
        addr, wide = (product + word)[: interfaces.ADDR_BITS], self._slots[row.slot].wide
        m.d.comb += [
            found.i.valid.eq(valid), self._advance.eq(found.i.ready),
            found.i.payload.row.eq(row), found.i.payload.addr.eq(addr),
            found.i.payload.wide.eq(wide), found.i.payload.stat.eq(stat),
            found.i.payload.pair.eq(interfaces.bank_pair(self.arch, addr, wide)),
        ]
        issue, request = self._issue(m, found.o)
        self._deliver(m, issue, request.row, request.stat)
        m.d.comb += self.idle.eq(~self._full.any())
        return m

    def _place(self, row: data.View) -> Value:
        """Row of the tensor, if no list picks it."""
        return row.pixel if self.arch.patterns else row.row

    # Commands -----------------------------------------------------------------------------------
    def _accept(self, m: Module) -> None:
        put, sum_bank = Signal(), Signal()
        command = self.command.payload
        m.d.comb += self.command.ready.eq(~self._full.bit_select(put, 1))
        with m.If(self.command.valid & self.command.ready):
            slot = self._slots[put]
            sums: Value = command.transform == Transform.EXP2
            if self.arch.row_sums:
                sums = command.row_scale == RowScale.OPERAND
            # Halves of the row sums change with every repetition.
            odd: Value = command.repeats[0] if self.arch.patterns else Const(0, 1)
            list_base: Value = command.src_list_base
            if self.arch.patterns:
                list_base = list_base + command.origin
            m.d.sync += [
                *(slot[name].eq(command[name]) for name in self._command.members),
                slot.dep_seq.eq(command.seq - command.dep_distance),
                slot.load.eq(command.load_seq - command.load_distance),
                slot.sum_bank.eq(sum_bank),
                slot.wide.eq(command.transform.matches(*WIDE_TRANSFORMS)),
                *enter(self.arch, slot.loops, command, sums),
                slot.list_base.eq(list_base),
                sum_bank.eq(sum_bank ^ (sums & ~odd)),
                self._fresh.bit_select(put, 1).eq(1),
                self._full.bit_select(put, 1).eq(1),
                put.eq(~put),
            ]

    # Loops ----------------------------------------------------------------------------------------
    def _generate(self, m: Module) -> tuple[data.View, Value]:
        """The next row, and whether there is one; its list entry is asked for."""
        slot = Signal()
        m.submodules.loops = loops = RowLoops(self.arch)
        valid = (self._fresh & self._listed).bit_select(slot, 1)
        made = Signal(self._row, name="made")
        m.d.comb += [
            loops.i.eq(self._slots[slot].loops), loops.advance.eq(self._advance & valid),
            made.eq(loops.o), made.slot.eq(slot),
            self.index.en.eq(self._advance),
            self.index.addr.eq(self._slots[slot].list_base + loops.place),
        ]
        with m.If(self._advance & valid & loops.o.end):
            m.d.sync += [slot.eq(~slot), self._fresh.bit_select(slot, 1).eq(0)]
        return made, valid

    def _stage(
        self, m: Module, row: data.View, valid: Value, name: str
    ) -> tuple[data.View, Value]:
        later = Signal(self._row, name=f"{name}_row", reset_less=True)
        later_valid = Signal(name=f"{name}_valid")
        with m.If(self._advance):
            m.d.sync += [later.eq(row), later_valid.eq(valid)]
        return later, later_valid

    def _register(self, m: Module, value: Value, bits: int) -> Signal:
        later = Signal(bits, name="stage", reset_less=True)
        with m.If(self._advance):
            m.d.sync += later.eq(value)
        return later

    # Waiting --------------------------------------------------------------------------------------
    def _flags(self, m: Module) -> None:
        """What can be said of a whole instruction, a cycle late (which only errs on the safe side).

        ``known``: the flags are those of the instruction in the slot.
        """
        self._flag = flags = Signal(data.ArrayLayout(data.StructLayout(
            dict.fromkeys(("known", "dep_done", "dep_now", "load_done", "load_now"), 1)
        ), _SLOTS))
        # A list is read long before the row waits: it must be there.
        self._listed = Signal(_SLOTS)
        for i in range(_SLOTS):
            slot = self._slots[i]
            passed = (self.epilogue.seq - slot.dep_seq)[:_SEQ].as_signed()
            loaded = (self.mover.seq - slot.load)[:_SEQ].as_signed()
            m.d.sync += [
                flags[i].known.eq(self._fresh[i]),
                flags[i].dep_done.eq((slot.dep_distance == 0) | (passed > 0)),
                flags[i].dep_now.eq((passed == 0) & self.epilogue.last_tile & ~slot.dep_end),
                flags[i].load_done.eq((slot.load_distance == 0) | (loaded > 0)),
                flags[i].load_now.eq((loaded == 0) & slot.load_stream),
                self._listed[i].eq(
                    flags[i].known & (~slot.src_list | flags[i].load_done | flags[i].load_now)
                ),
            ]

    def _blocked(self, row: data.View, pass_ok: Value) -> Value:
        """Reasons to wait, in the order of :data:`STALLS`."""
        flag, slot = self._flag[row.slot], self._slots[row.slot]
        # A list may ask for any row, so it waits for all of them.
        whole: Value = slot.src_list
        if self.arch.patterns:
            whole = whole | slot.repeats.any()
        row_written = ~whole & (self.epilogue.row > self._place(row))
        produced = flag.dep_done | (flag.dep_now & (~row.needs_row | row_written))
        loaded = flag.load_done | (flag.load_now & (self.mover.words > row.position))
        behind = (row.tile - self.drain_read.tile)[:_SEQ]
        drained = (
            ~row.last | behind[-1] | (behind == 0)
            | ((behind == 1) & (self.drain_read.row > row.row))
        )
        return Cat(row.swap & ~(self.tile_ready & pass_ok), ~(produced & loaded), ~drained)

    def _issue(self, m: Module, found: stream.Interface) -> tuple[Value, data.View]:
        """Evaluate the conditions of the row that is in the request stage in the next cycle.

        Returns whether the row in the request stage goes now, and that row.
        """
        # The arbiter sees registers only.
        request, valid = Signal.like(found.payload, name="request", reset_less=True), Signal()
        row, moves = request.row, Signal()
        issue, starts, go = Signal(), Signal(), Signal()
        pass_timer = Signal(range(interfaces.MIN_PASS))
        pass_ok = (pass_timer == 0) & ~starts
        # Between the first and the last row of a pass.
        inside = Signal()
        blocked, blocked_next, next_valid = Signal(3), Signal(3), Signal()
        m.d.comb += [
            blocked_next.eq(Mux(
                moves, self._blocked(found.payload.row, pass_ok), self._blocked(row, pass_ok),
            )),
            next_valid.eq(Mux(moves, found.valid, valid)),
            *(getattr(self.read, name).eq(request[name]) for name in ("addr", "wide", "pair")),
            self.read.valid.eq(go),
            issue.eq(go & self.read.ready),
            starts.eq(issue & row.swap),
            moves.eq(~valid | issue), found.ready.eq(moves),
        ]
        with m.If(moves):
            m.d.sync += [request.eq(found.payload), valid.eq(found.valid)]
        m.d.sync += [
            go.eq(next_valid & ~blocked_next.any()),
            blocked.eq(blocked_next),
            self.tile_take.eq(starts),
            inside.eq(Mux(issue, ~row.final, inside)),
            # A row that waits within a pass delays its successor in the next one as well.
            pass_timer.eq(Mux(
                starts, interfaces.MIN_PASS - 2,
                pass_timer - ((pass_timer != 0) & (issue | ~inside)),
            )),
            self.row.eq(issue),
            self.stall.empty.eq(~valid),
            self.stall.bank.eq(go & ~self.read.ready),
        ]
        earlier = ~valid
        for bit, name in zip(blocked, STALLS, strict=False):
            m.d.sync += self.stall[name].eq(bit & ~earlier)
            earlier |= bit
        with m.If(issue & row.end):
            m.d.sync += self._full.bit_select(row.slot, 1).eq(0)
        self._report(m, issue & row.end)
        return issue, request

    def _report(self, m: Module, finished: Value) -> None:
        for stage in range(_PROGRESS_DELAY):
            later = Signal(name=f"finished_{stage}")
            m.d.sync += later.eq(finished)
            finished = later
        with m.If(finished):
            m.d.sync += self.progress.seq.eq(self.progress.seq + 1)

    # What goes with the data ----------------------------------------------------------------------
    def _deliver(self, m: Module, issue: Value, row: data.View, stat: Value) -> None:
        arch = self.arch
        m.submodules.gains = gains = Memory(
            shape=unsigned(8 * arch.depth), depth=2 * arch.max_dim_words, init=[]
        )
        write, read = gains.write_port(), gains.read_port()
        command = self._slots[row.slot]
        word_bits = len(self.gain_write.p.word)
        # Gains and statistics take two cycles, the token memory perhaps more.
        gain_addr: Value = Cat(row.word[:word_bits], command.gain_slot)
        for stage in range(interfaces.READ_LATENCY - 1):
            later = Signal.like(read.addr, name=f"gain_addr_{stage}", reset_less=True)
            stat_later = Signal.like(stat, name=f"stat_addr_{stage}", reset_less=True)
            m.d.sync += [later.eq(gain_addr), stat_later.eq(stat)]
            gain_addr, stat = later, stat_later
        m.d.comb += [
            write.en.eq(self.gain_write.valid),
            write.addr.eq(Cat(self.gain_write.p.word, self.gain_write.p.slot)),
            write.data.eq(self.gain_write.p.data),
            read.addr.eq(gain_addr), self.stat_addr.eq(stat),
        ]

        layout = data.StructLayout({
            "mode": interfaces.mode_bits(arch), "lanes": self.o.p.lanes.shape().width, "shift": 5,
            "mantissa": interfaces.STAT["mantissa"].width, "tag": interfaces.tag_layout(arch),
        })
        requested = Signal(layout, reset_less=True)
        lanes: Value = Mux(row.short, command.k_last, arch.depth)
        if arch.patterns:
            lanes = Mux(row.outside, 0, lanes)
        m.d.sync += [
            requested.mode.eq(command.transform),
            requested.lanes.eq(lanes),
            requested.shift.eq(command.norm_shift),
            requested.mantissa.eq(command.norm_mantissa),
            requested.tag.row.eq(row.row),
            *(requested.tag[name].eq(row[name])
              for name in ("first", "last", "final", "swap", "sum",
                           *(("nibbles",) if arch.sees_nibbles else ()),
                           *(("paired",) if arch.nibble_tiles > 1 else ()))),
            requested.tag.sum_bank.eq(
                command.sum_bank ^ (row.odd if self.arch.patterns else 0)),
        ]
        arrived, valid = requested, issue
        for stage in range(1, interfaces.READ_LATENCY):
            earlier, arrived = arrived, Signal(layout, name=f"arrived_{stage}", reset_less=True)
            m.d.sync += arrived.eq(earlier)
        for stage in range(interfaces.READ_LATENCY - 1):
            issued, valid = valid, Signal(name=f"valid_{stage}")
            m.d.sync += valid.eq(issued)
        m.d.sync += self.o.valid.eq(valid)
        out = self.o.p
        m.d.comb += [
            out.lo.eq(self.read.lo), out.hi.eq(self.read.hi), out.gain.eq(read.data),
            out.mode.eq(arrived.mode), out.lanes.eq(arrived.lanes), out.tag.eq(arrived.tag),
            out.stat.eq(self.stat),
        ]
        with m.If(arrived.mode.matches(Transform.SCALE, *([Transform.PRODUCT] * arch.products))):
            m.d.comb += [
                out.stat.mean.eq(0), out.stat.shift.eq(arrived.shift),
                out.stat.mantissa.eq(arrived.mantissa),
            ]
