"""What each engine gets of an instruction."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import FORMATS, NO_PATTERN, Opcode, Region
from vitrify.rtl.interfaces import (
    MEMORY_REQUEST,
    MOVE_COMMAND,
    QUEUE,
    ROUTE_COMMAND,
    SEQ_BITS,
    epilogue_command,
    fetch_command,
    instruction_layout,
    loader_command,
)

from .distances import DISTANCES, Distances
from .expert_rows import ROWS, ExpertRows
from .instruction_fetch import INSTRUCTION_BITS
from .jobs import JOB, page_address
from .pattern import PATTERN, KeptPattern
from .task_offset import TaskOffset

#: Engines that get a MATMUL.
COMMANDS = ("loader", "fetch", "epilogue")
#: Numbers that the next MATMUL and the next load get; MATMULs skipped since the last one.
NUMBERS = data.StructLayout(dict.fromkeys(("matmuls", "loads", "skipped"), SEQ_BITS))
#: Cycles from an expert's queue to the payloads and to ``empty``.
QUEUE_LATENCY = ExpertRows.LATENCY


def payloads(arch: ArchConfig) -> dict[str, data.StructLayout]:
    """What the dispatcher hands out, by the queue's name."""
    return {
        "loader": loader_command(arch), "fetch": fetch_command(arch),
        "epilogue": epilogue_command(arch), "weights": MEMORY_REQUEST, "loads": MOVE_COMMAND,
        "stores": MOVE_COMMAND, "routes": ROUTE_COMMAND,
    }


class Decode(wiring.Component):
    """Payloads of every queue, as functions of the instruction word; ``load`` comes with it.

    They are complete one cycle after ``load`` or when ``busy`` falls, and with ``expert_rows``
    ``QUEUE_LATENCY`` cycles after ``queue`` stands still.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    word : :py:`In(512)`
    load : :py:`In(1)`
        First cycle of a new word.
    job : :py:`In(JOB)`
    numbers : :py:`In(NUMBERS)`
    advance, skip : :py:`In(1)`
        The word is a MATMUL, and is dispatched or skipped in this cycle.
    prefix, forget : :py:`In(1)`
        The word is a PATTERN, which is kept for the next MATMUL; what was kept is none any more.
    pattern : :py:`Out(PATTERN)`
        What is kept, if the core has patterns.
    queue : :py:`In(QUEUE)`
        The queue of the word's expert.
    <queue> : :py:`Out(payloads(arch)[queue])`
    busy : :py:`Out(1)`
        The address is not complete.
    empty : :py:`Out(1)`
        The expert's queue has no rows for the word.
    """

    word: Signal
    load: Signal
    job: Any
    numbers: Any
    advance: Signal
    skip: Signal
    prefix: Signal
    forget: Signal
    pattern: Any
    queue: Any
    busy: Signal
    empty: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._payloads = payloads(arch)
        super().__init__({
            "word": In(INSTRUCTION_BITS), "load": In(1), "job": In(JOB),
            "numbers": In(NUMBERS),
            "advance": In(1), "skip": In(1), "prefix": In(1), "forget": In(1), "queue": In(QUEUE),
            **{name: Out(layout) for name, layout in self._payloads.items()},
            "busy": Out(1), "empty": Out(1),
            **({"pattern": Out(PATTERN)} if arch.patterns else {}),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        view = {op: data.View(instruction_layout(op), self.word) for op in FORMATS}
        self._opcode = view[Opcode.END].opcode
        address = self._address(m, view)
        distances = self._distances(m, view)
        self._special: dict[str, Value] = {}
        if self.arch.patterns:
            self._pattern(m, view[Opcode.MATMUL])
        self._matmul(m, view[Opcode.MATMUL], distances)
        m.d.comb += [
            self.weights.address.eq(address),
            self.weights.words.eq(view[Opcode.MATMUL].stream_words),
        ]
        self._moves(m, view[Opcode.LOAD], view[Opcode.LOAD_INDEX], address, distances)
        route = view[Opcode.ROUTE]
        m.d.comb += [
            *(self.routes[name].eq(route[name]) for name in ROUTE_COMMAND.members
              if name != "wait_seq"),
            self.routes.wait_seq.eq(self.numbers.matmuls - distances.wait),
        ]
        return m

    def _address(self, m: Module, view: dict[Opcode, Any]) -> Value:
        m.submodules.offset = unit = TaskOffset(self.arch.depth)
        move, matmul, lists = (view[op] for op in (Opcode.LOAD, Opcode.MATMUL, Opcode.LOAD_INDEX))
        is_matmul, is_list = (self._opcode == op for op in (Opcode.MATMUL, Opcode.LOAD_INDEX))
        base = Mux(move.region == Region.INPUT, self.job.input, self.job.output)
        program = is_matmul | (move.region == Region.PROGRAM)

        def either(name: str) -> Value:
            return Mux(is_matmul, matmul[name], Mux(is_list, lists[name], move[name]))

        m.d.comb += [
            unit.load.eq(self.load),
            unit.base.eq(page_address(Mux(program, self.job.program, base))),
            unit.offset.eq(Mux(is_matmul, matmul.stream_offset, move.offset)),
            unit.stride.eq(either("task_stride")),
            unit.task.eq(self.job.task[either("task_source")]),
            self.busy.eq(unit.busy),
        ]
        return unit.address

    def _distances(self, m: Module, view: dict[Opcode, Any]) -> Any:
        """Distances to MATMULs; without experts, those of the program."""
        matmul, program = view[Opcode.MATMUL], Signal(DISTANCES)
        m.d.comb += [program.dep.eq(matmul.dep_distance), program.st.eq(matmul.st_distance)]
        wait = program.wait
        with m.Switch(self._opcode):
            with m.Case(Opcode.LOAD_INDEX):
                m.d.comb += wait.eq(view[Opcode.LOAD_INDEX].wait_distance)
            with m.Case(Opcode.ROUTE):
                m.d.comb += wait.eq(view[Opcode.ROUTE].wait_distance)
            with m.Default():
                m.d.comb += wait.eq(view[Opcode.LOAD].wait_distance)
        if not self.arch.experts:
            return program
        m.submodules.distances = unit = Distances()
        m.d.comb += [
            unit.program.eq(program), unit.advance.eq(self.advance), unit.skip.eq(self.skip),
        ]
        return unit.real

    def _pattern(self, m: Module, matmul: Any) -> None:
        """Keep a PATTERN for the next MATMUL, and what of it has to be multiplied."""
        m.submodules.kept = unit = KeptPattern()
        kept = self.pattern
        m.d.comb += [
            unit.word.eq(self.word), unit.keep.eq(self.prefix),
            unit.forget.eq(self.forget | self.advance | self.skip), kept.eq(unit.o),
        ]
        # It stands still for some cycles before a MATMUL is dispatched.
        above, origin, line = Signal(32), Signal(16), Signal(16)
        width = kept.map_width
        m.d.sync += [
            above.eq(kept.origin_y * width), origin.eq(above + kept.origin_x),
            line.eq(sum(Mux(bit, width << at, 0) for at, bit in enumerate(kept.tap_stride))),
        ]
        self._special = {
            **{name: kept[name] for name in NO_PATTERN}, "origin": origin, "line": line,
            "gain_words": Mux(kept.gain_words == 0, matmul.k_tiles, kept.gain_words),
        }

    def _matmul(self, m: Module, matmul: Any, distances: Any) -> None:
        rows: Any = matmul
        if self.arch.experts:
            m.submodules.rows = unit = ExpertRows()
            m.d.comb += [
                *(unit.own[name].eq(matmul[name]) for name in ROWS.members),
                unit.use.eq(matmul.expert_rows), unit.first.eq(matmul.expert_first),
                unit.queue.eq(self.queue), self.empty.eq(unit.empty),
            ]
            rows = unit.o
        special = {
            "seq": self.numbers.matmuls, "load_seq": self.numbers.loads,
            "skipped": self.numbers.skipped,
            "dep_distance": distances.dep, "st_distance": distances.st,
            **{name: rows[name] for name in ROWS.members}, **self._special,
        }
        for name in COMMANDS:
            command = getattr(self, name)
            for field in self._payloads[name].members:
                value = special[field] if field in special else matmul[field]
                m.d.comb += command[field].eq(value)

    def _moves(
        self, m: Module, move: Any, lists: Any, address: Value, distances: Any
    ) -> None:
        command = Signal(MOVE_COMMAND)
        m.d.comb += [
            command.opcode.eq(move.opcode), command.address.eq(address),
            command.addr.eq(move.addr), command.words.eq(move.words), command.wide.eq(move.wide),
            command.stride.eq(move.stride), command.rows.eq(move.rows),
        ]
        with m.If(move.opcode == Opcode.LOAD_INDEX):
            m.d.comb += [
                command.addr.eq(lists.base), command.words.eq(lists.count),
                command.rows.eq(1), command.wide.eq(0),
            ]
        m.d.comb += [
            command.wait.eq(distances.wait != 0),
            command.wait_seq.eq(self.numbers.matmuls - distances.wait),
            self.loads.eq(command), self.stores.eq(command),
        ]
