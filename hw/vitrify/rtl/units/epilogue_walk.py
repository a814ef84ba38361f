"""The epilogue's loops: instructions in, lane groups with all their addresses out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import WITH_PARAMETERS, Output, RowScale
from vitrify.rtl import interfaces
from vitrify.rtl.lib.skid import Skid
from vitrify.rtl.memory.index_memory import ENTRY_BITS, gated_read

from .lane_group import carried, group_layout, has_old_address
from .row_stats import RowStats

_C_BITS = interfaces.matmul_bits("c_tiles")
_SEQ = interfaces.SEQ_BITS
_STAT_BITS = interfaces.matmul_bits("stat_dst")
#: Instructions in flight: one whose groups are generated, one whose groups are taken.
_SLOTS = 2
#: Cycles from a c tile to what is known of its load.
_SETTLE = 2
#: What is known of an instruction, beside its command.
_KNOWN = {
    "row_last": interfaces.ROW_BITS, "tile_last": _C_BITS, "column_last": 9,
    "load": _SEQ, "sum_bank": 1,
}


@dataclass
class _Old:
    """Registers behind the row-index memory: where old values are, if elsewhere; the gate."""

    word: Signal
    elsewhere: Signal
    weight: Any
    own: Any


class EpilogueWalk(wiring.Component):
    """For c tile, for row, for lane group; runs a few groups ahead of what it waits for.

    The instruction behind the present one is prefetched, so that there is no bubble between
    rows, c tiles and instructions.

    Members
    -------
    command : :py:`In(stream.Signature(epilogue_command(arch)))`
    mover : :py:`In(MOVER_PROGRESS)`
        The first group of an instruction waits for its load; with ``epi_load_stream`` the first
        group of a c tile waits for the load's elements of that tile.
    index : :py:`Out(gated_read(arch))`
    o : :py:`Out(stream.Signature(group_layout(arch)))`
    empty : :py:`Out(1)`
        No instruction is in here.
    """

    command: stream.Interface
    mover: data.View
    index: wiring.PureInterface
    o: stream.Interface
    empty: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._group = group_layout(arch)
        self._command = interfaces.epilogue_command(arch)
        #: What the loops know about a group.
        self._step = data.StructLayout({
            "slot": 1, "row_id": ENTRY_BITS, "word": interfaces.ADDR_BITS,
            **{name: self._group[name].shape for name in (
                "row", "group", "tile", "lane_last", "piece", "starts", "begins", "ends",
                "first_tile", "last_tile", "tile_ends", "finishes", "last_next",
                *(["second", "pauses"] if arch.nibble_tiles > 1 else []))},
            # Words from a PATTERN's first row of old values to this one; what a repetition adds to
            # entries of the statistics memory; it is every other one.
            **({"old_word": interfaces.ADDR_BITS, "stat_base": _STAT_BITS,
                "scale_base": _STAT_BITS, "odd": 1} if arch.patterns else {}),
        })
        super().__init__({
            "command": In(stream.Signature(self._command)),
            "mover": In(interfaces.MOVER_PROGRESS),
            "index": Out(gated_read(arch)),
            "o": Out(stream.Signature(self._group)),
            "empty": Out(1),
        })
        # From a repetition's old values to the next ones, less those words that its results have.
        more = {"old_step": interfaces.ADDR_BITS} if arch.patterns else {}
        slot = data.StructLayout({**self._command.members, **_KNOWN, **more})
        self._slots = Signal(data.ArrayLayout(slot, _SLOTS), reset_less=True)
        #: Slots with an instruction, and those whose groups are still to be generated.
        self._full = Signal(_SLOTS)
        self._fresh = Signal(_SLOTS)
        #: Slots whose load is finished, and those whose load is the one in progress.
        self._loaded = Signal(_SLOTS)
        self._loading = Signal(_SLOTS)
        #: The pipeline behind the loops moves.
        self._advance = Signal()

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._accept(m)
        # Between the loops and the addresses, which move together.
        m.submodules.steps = steps = Skid(self._step)
        self._loops(m, steps)
        step = steps.o.payload
        m.d.comb += [
            steps.o.ready.eq(self._advance), self.index.en.eq(self._advance),
            self.index.addr.eq(self._slots[step.slot].dst_list_base + step.row_id),
        ]
        self._addresses(m, step, steps.o.valid)
        return m

    def _accept(self, m: Module) -> None:
        put, sum_bank = Signal(), Signal()
        command = self.command.payload
        accept = self.command.valid & self.command.ready
        m.d.comb += self.command.ready.eq(~self._full.bit_select(put, 1))
        for i in range(_SLOTS):
            # Signed difference of sequence numbers: positive when the load is finished.
            ahead = Signal(_SEQ, name=f"ahead{i}")
            slot = self._slots[i]
            m.d.comb += ahead.eq(self.mover.seq - slot.load)
            done = (slot.epi_load_distance == 0) | ((ahead != 0) & ~ahead[-1])
            m.d.sync += [
                self._loaded[i].eq(self._full[i] & done),
                self._loading[i].eq((ahead == 0) & slot.epi_load_stream),
            ]
        # Halves of the row sums change with every repetition.
        odd: Value = command.repeats[0] if self.arch.patterns else Const(0, 1)
        with m.If(accept):
            slot = self._slots[put]
            m.d.sync += [
                *(slot[name].eq(command[name]) for name in self._command.members),
                slot.row_last.eq(command.rows - 1),
                slot.tile_last.eq(command.c_tiles - 1),
                slot.column_last.eq(command.c_last - 1),
                slot.load.eq(command.load_seq - command.epi_load_distance),
                slot.sum_bank.eq(sum_bank),
                sum_bank.eq(sum_bank ^ ((command.row_scale == RowScale.OPERAND) & ~odd)),
                self._fresh.bit_select(put, 1).eq(1),
                self._full.bit_select(put, 1).eq(1),
                put.eq(~put),
            ]
            if self.arch.patterns:
                m.d.sync += slot.old_step.eq(command.add_step - command.dst_step)

    def _loops(self, m: Module, steps: Skid) -> None:
        arch = self.arch
        group_bits, lane_bits = ceil_log2(arch.most_groups), exact_log2(arch.lanes)
        piece_bits = exact_log2(arch.depth // arch.lanes)
        slot = Signal()
        command = self._slots[slot]
        group, row, tile = (
            Signal(group_bits), Signal(interfaces.ROW_BITS), Signal(_C_BITS)
        )
        global_tile = Signal(_SEQ)
        group_end, row_end, tile_end, tile_ends = Signal(), Signal(), Signal(), Signal()
        followed = self._follow(m, slot, tile, tile_ends)
        valid = self._fresh.bit_select(slot, 1) & (
            self._loaded.bit_select(slot, 1) | followed
        )
        step, advance = steps.i.payload, steps.i.ready
        group_last = command.column_last[lane_bits : lane_bits + group_bits]
        # Pieces of E columns from column 0 on: as many as fit make a word.
        place: Value = Cat(group, tile)
        groups: Any = arch.groups
        if arch.nibble_thirds:
            before = Signal(len(place))     # those of the c tiles before this one
            groups = Mux(command.nibbles, arch.most_groups, arch.groups)
            place = (before + group)[: len(place)]
            with m.If(tile_ends):
                m.d.sync += before.eq(Mux(tile_end, 0, before + groups))
        word: Value = place[piece_bits:]
        last_time: Value = Const(1)
        first_time: Value = Const(1)
        if arch.patterns:
            last_time, first_time, word = self._repeat(
                m, step, command, word, tile_ends & tile_end, advance & valid & group_end)
        m.d.comb += [
            tile_end.eq(tile == command.tile_last),
            row_end.eq(row == command.row_last),
            group_end.eq(group == Mux(tile_end, group_last, groups - 1)),
            step.slot.eq(slot), step.row_id.eq(row), step.row.eq(row), step.group.eq(group),
            step.tile.eq(global_tile),
            step.lane_last.eq(
                Mux(tile_end & group_end, command.column_last[:lane_bits], arch.lanes - 1)
            ),
            step.piece.eq(place[:piece_bits]), step.word.eq(word),
            step.starts.eq((group == 0) & (row == 0) & (tile == 0) & first_time),
            step.begins.eq(group == 0), step.ends.eq(group_end),
            step.first_tile.eq(tile == 0), step.last_tile.eq(tile_end),
            step.tile_ends.eq(group_end & row_end),
            step.finishes.eq(group_end & row_end & tile_end & last_time),
            step.last_next.eq(last_time & Mux(
                row_end, ~tile_end & (tile + 1 == command.tile_last), tile_end)),
            steps.i.valid.eq(valid),
            tile_ends.eq(advance & valid & group_end & row_end),
        ]
        if arch.nibble_tiles > 1:
            few = command.row_last < RowStats.REVISIT - 1
            m.d.comb += [
                step.second.eq(tile[0]),
                step.pauses.eq(command.nibbles & tile[0] & few & (row == 0) & (group == 0)),
            ]
        with m.If(advance & valid):
            m.d.sync += group.eq(group + 1)
            with m.If(group_end):
                m.d.sync += [group.eq(0), row.eq(row + 1)]
                with m.If(row_end):
                    m.d.sync += [row.eq(0), tile.eq(tile + 1), global_tile.eq(global_tile + 1)]
                    with m.If(tile_end):
                        m.d.sync += tile.eq(0)
                        with m.If(last_time):
                            m.d.sync += [slot.eq(~slot), self._fresh.bit_select(slot, 1).eq(0)]

    def _repeat(
        self, m: Module, step: data.View, command: Any, word: Value, ends: Value, row_ends: Value
    ) -> tuple[Value, Value, Value]:
        """All of it again, further on: whether it is the last and the first time, and the word.

        ``ends``: a repetition does; ``row_ends``: a row of a c tile does.  Old values of their own
        lie row behind row, whatever the rows of the result.
        """
        time = Signal(interfaces.pattern_bits("repeats"))
        last = time == command.repeats
        steps = {"dst": command.dst_step, "old": command.old_step, "stat": command.stat_dst_step,
                 "scale": command.stat_src_step}
        at = {name: Signal(len(value), name=f"{name}_at") for name, value in steps.items()}
        old = Signal(interfaces.ADDR_BITS)
        m.d.comb += [
            step.old_word.eq(old), step.stat_base.eq(at["stat"]), step.scale_base.eq(at["scale"]),
            step.odd.eq(time[0]),
        ]
        with m.If(row_ends):
            m.d.sync += old.eq(old + command.add_stride)
            with m.If(step.tile_ends):
                m.d.sync += old.eq(at["old"])
        with m.If(ends):
            m.d.sync += [time.eq(time + 1), old.eq(at["old"] + command.old_step),
                         *(at[name].eq(at[name] + value) for name, value in steps.items())]
            with m.If(last):
                m.d.sync += [time.eq(0), old.eq(0), *(one.eq(0) for one in at.values())]
        return last, time == 0, word + at["dst"]

    def _follow(self, m: Module, slot: Value, tile: Signal, tile_ends: Value) -> Value:
        """Whether the load in progress has all old values of the c tile, two cycles late.

        Elements (K values) come in the order of LOAD: all rows of one before the next.
        """
        command, arch = self._slots[slot], self.arch
        more = exact_log2(max(1, arch.width // arch.depth))
        parts = exact_log2(max(1, arch.depth // arch.width))   # c tiles of an element
        words = self.mover.words
        before, needed = Signal.like(words), Signal.like(words)
        elements: Value = command.rows << more
        if arch.nibble_thirds:
            elements += Mux(command.nibbles, command.rows << more - 1, 0)
        # Behind a change of tile or instruction the comparison is of the one before.
        settled = Signal(_SETTLE)
        enough = Signal()
        with m.If(tile_ends):
            ends = (tile & ((1 << parts) - 1)) == (1 << parts) - 1
            m.d.sync += before.eq(Mux(ends, before + elements, before))
            with m.If(tile == command.tile_last):
                m.d.sync += before.eq(0)
        m.d.sync += [
            needed.eq(before + elements),
            enough.eq((words >= needed) & self._loading.bit_select(slot, 1)),
            settled.eq(Mux(
                tile_ends | ~self._fresh.bit_select(slot, 1), 0, Cat(Const(1, 1), settled)
            )),
        ]
        return enough & settled[-1]

    def _addresses(self, m: Module, step: data.View, valid: Value) -> None:
        """Row number (perhaps from the list), times stride, plus base: four stages."""
        # Behind it, a request waits for memories; in front of it, everything moves together.
        m.submodules.skid = skid = Skid(self._group)
        connect(m, skid.o, flipped(self.o))
        made = skid.i.payload
        step, valid = self._stage(m, step, valid, "index")
        command = self._slots[step.slot]
        arch = self.arch
        old: Any = None
        if arch.experts or arch.patterns:
            old = self._old(m, step, command)
        row_id = self._register(
            m, Mux(command.dst_list, self.index.data, step.row_id), ENTRY_BITS, "row_id"
        )
        word = self._register(m, command.dst_addr + step.word, interfaces.ADDR_BITS, "word")
        stride = self._register(m, command.dst_stride, len(command.dst_stride), "stride")
        stat = self._register(m, self._further(command.stat_dst, step, "stat_base"), _STAT_BITS,
                              "stat_base")
        if arch.row_sums:
            scale = self._register(m, self._further(command.stat_src, step, "scale_base"),
                                   _STAT_BITS, "scale_base")
        step, valid = self._stage(m, step, valid, "factors")
        if arch.row_sums:
            scale = self._register(m, scale + row_id, len(made.scale_addr), "scale")
        if old:
            old_word = self._register(
                m, Mux(old.elsewhere, old.word, word), interfaces.ADDR_BITS, "old_word")
        if arch.patterns:
            own = self._register(m, old.own, 1, "own_later")
            old_row = self._register(m, step.old_word, interfaces.ADDR_BITS, "old_row")
        if arch.experts:
            weight = self._register(m, old.weight, formats.GATE_BITS, "gate_later")
        product = self._register(m, row_id * stride, interfaces.ADDR_BITS, "row_words")
        word = self._register(m, word, interfaces.ADDR_BITS, "word_later")
        stat = self._register(m, stat + row_id, len(stat), "stat")
        step, valid = self._stage(m, step, valid, "product")
        if arch.experts:
            m.d.comb += made.gate.eq(
                self._register(m, weight, formats.GATE_BITS, "gate_latest"))
        if arch.row_sums:
            m.d.comb += made.scale_addr.eq(self._register(m, scale, len(scale), "scale_later"))
        old_addr = None
        if old:
            rows = Mux(own, old_row, product) if arch.patterns else product
            old_addr = self._register(m, rows + old_word, interfaces.ADDR_BITS, "old_addr")
        addr = self._register(m, product + word, interfaces.ADDR_BITS, "addr")
        stat = self._register(m, stat, len(stat), "stat_later")
        step, valid = self._stage(m, step, valid, "address")

        command = self._slots[step.slot]
        if arch.experts:
            m.d.comb += made.skipped.eq(command.skipped)
        if arch.sees_nibbles:
            m.d.comb += made.nibbles.eq(command.nibbles)
        if has_old_address(arch):
            self._place_old(m, made, command, addr if old_addr is None else old_addr)
        named = {name for name, _ in self._step} & {name for name, _ in self._group}
        m.d.comb += [
            skid.i.valid.eq(valid),
            self._advance.eq(~valid | skid.i.ready),
            self.empty.eq((self._full == 0) & skid.empty),
            *(made[name].eq(step[name]) for name in sorted(named)),
            *(made[name].eq(command[name]) for name in carried(arch)),
            made.addr.eq(addr), made.stat_addr.eq(stat),
            made.weights.eq(command.stationary.matches(*WITH_PARAMETERS)),
            made.sum_bank.eq(command.sum_bank ^ (step.odd if arch.patterns else 0)),
        ]
        with m.If(valid & skid.i.ready & made.finishes):
            m.d.sync += self._full.bit_select(step.slot, 1).eq(0)

    def _further(self, base: Value, step: data.View, name: str) -> Value:
        return base + step[name] if self.arch.patterns else base

    def _old(self, m: Module, step: data.View, command: Any) -> _Old:
        """Where old values are for a row's first expert, or with `add_source`; the gate."""
        elsewhere: Value = command.add_source if self.arch.patterns else Const(0, 1)
        weight = own = None
        if self.arch.patterns:
            own = self._register(m, command.add_source, 1, "own")
        if self.arch.experts:
            entry = self.index.gate
            elsewhere |= command.gate & entry.first
            weight = self._register(
                m, Mux(command.gate, entry.weight, 1 << formats.GATE_FRAC), formats.GATE_BITS,
                "gate_weight")
        return _Old(
            word=self._register(m, command.add_addr + step.word, interfaces.ADDR_BITS, "add_word"),
            elsewhere=self._register(m, elsewhere, 1, "elsewhere"), weight=weight, own=own,
        )

    def _place_old(self, m: Module, made: data.View, command: Any, address: Value) -> None:
        """Old bytes lie in one word of a pair."""
        m.d.comb += made.old_addr.eq(address)
        if self.arch.addends:
            at = exact_log2(self.arch.bank_words)
            m.d.comb += made.old_high.eq(address[at])
            with m.If(command.output == Output.ADD8):
                m.d.comb += made.old_addr.eq(Cat(address[:at], address[at + 1 :]))

    def _stage(
        self, m: Module, step: data.View, valid: Value, name: str
    ) -> tuple[data.View, Value]:
        later = Signal(self._step, name=f"{name}_step", reset_less=True)
        later_valid = Signal(name=f"{name}_valid")
        with m.If(self._advance):
            m.d.sync += [later.eq(step), later_valid.eq(valid)]
        return later, later_valid

    def _register(self, m: Module, value: Value, width: int, name: str) -> Signal:
        register = Signal(width, name=name, reset_less=True)
        with m.If(self._advance):
            m.d.sync += register.eq(value)
        return register
