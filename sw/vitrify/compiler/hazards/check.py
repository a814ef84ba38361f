"""Happens-before: whether every instruction waits for what it needs, whatever the timing.

The golden machine executes one instruction after the other and never looks at a wait; the core
runs several at once.  A program is sound if both always agree: nothing is read before its last
write, nothing is overwritten before its last reader, on any core and with any memory.  That is
decided here from the instructions alone, for every word of the token memory, every entry of the
row-index and statistics memories, both halves of gains and tables, and the regions in DRAM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitrify.arch import formats, memmap
from vitrify.arch.access import repetitions, streamed
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import VitrifyError
from vitrify.arch.isa import (
    INSTRUCTION_BYTES,
    Instruction,
    Opcode,
    Region,
    RowScale,
    Stats,
    Transform,
)
from vitrify.program import Program

from .footprint import Footprint, Index, Rows
from .order import LOAD, MATMUL, Moments, Order
from .slots import Slots
from .words import NEVER, Access, Conflict, Memory

#: More are counted, not named.
_MOST = 1_000


class HazardError(VitrifyError):
    """An instruction of a program does not wait for what it needs: a fault of the compiler."""


@dataclass(frozen=True)
class Hazard:
    """``later`` may overtake ``earlier`` at some of ``words`` of a memory."""

    later: int
    earlier: int
    memory: str
    words: tuple[int, int]
    #: What happens, and the field that would prevent it.
    what: str
    missing: str

    def __str__(self) -> str:
        first, last = self.words
        where = f"{first}" if first == last else f"{first} to {last}"
        of = "" if self.earlier == self.later else f" of instruction {self.earlier}"
        return f"instruction {self.later} {self.what} {self.memory} {where}{of}, and {self.missing}"


def check(program: Program) -> None:
    """Refuse a program that does not wait for everything it needs.

    Raises
    ------
    HazardError
        Names the first hazard's instructions and words, the layers, and the wait that is missing.
    """
    found = hazards(program.arch, list(program.instructions()), program.image)
    if not found:
        return
    first, names = found[0], {layer.instruction: layer.name for layer in program.layers}
    layers = " and ".join(
        f"{number} is {names[number]!r}" for number in (first.later, first.earlier)
        if number in names
    )
    more = f"; {len(found) - 1} more hazards" if len(found) > 1 else ""
    raise HazardError(
        f"program {program.model!r} would depend on the timing of the core: {first}"
        + (f" ({layers})" if layers else "") + more
    )


def hazards(
    arch: ArchConfig, instructions: Sequence[Instruction], image: np.ndarray
) -> list[Hazard]:
    """All hazards of a job, in program order (at most a thousand)."""
    found: list[Hazard] = []
    for hazard in _Checker(arch, instructions, image).run():
        found.append(hazard)
        if len(found) == _MOST:
            break
    return found


class _Checker:
    """Walks over the instructions, with what was last done to every word."""

    def __init__(
        self, arch: ArchConfig, instructions: Sequence[Instruction], image: np.ndarray
    ) -> None:
        self.arch, self.code = arch, instructions
        self.order, self.at = Order(arch), Footprint(arch, image)
        self.tokens = Memory("token memory words", arch.token_words)
        self.index = Memory("row-index entries", arch.index_entries)
        self.statistics = Memory("row statistics", arch.stat_rows)
        #: Instructions of the MATMULs, LOADs, STOREs and ROUTEs so far.
        self.numbers: dict[str, list[int]] = {"matmul": [], "load": [], "store": [], "route": []}
        self.slots = Slots()
        #: ``(region, first byte, byte behind, instruction)`` of what is stored to DRAM.
        self.stored: list[tuple[int, int, int, int]] = []

    def run(self) -> Iterator[Hazard]:
        for number, op in enumerate(self.code):
            match op.opcode:
                case Opcode.MATMUL:
                    self.numbers["matmul"].append(number)
                    yield from self._matmul(number, op)
                case Opcode.LOAD | Opcode.LOAD_INDEX:
                    self.numbers["load"].append(number)
                    yield from self._load(number, op)
                case Opcode.STORE:
                    self.numbers["store"].append(number)
                    yield from self._store(number, op)
                case Opcode.ROUTE:
                    self.numbers["route"].append(number)
                    yield from self._route(number, op)
                case _:
                    pass
        yield from self._streams()

    # Moves -------------------------------------------------------------------------------
    def _load(self, number: int, op: Instruction) -> Iterator[Hazard]:
        clock, count = self.order.load(op), len(self.numbers["load"]) - 1
        yield from self._from_dram(number, op)
        if op.opcode is Opcode.LOAD_INDEX:
            entries = self.at.load_index(op)
            done = Access("loads", (count + 1) * LOAD)
            yield from self._named(number, op, self.index.write(entries, done, clock), "waits")
            return
        words = self.at.moved(op)
        element = np.arange(op.words)[:, None] * op.rows + np.arange(op.rows)
        done = Access("loads", count * LOAD + 1 + element)
        for plane in words:
            yield from self._named(number, op, self.tokens.write(plane, done, clock), "waits")

    def _store(self, number: int, op: Instruction) -> Iterator[Hazard]:
        clock, count = self.order.store(op), len(self.numbers["store"])
        for plane in self.at.moved(op):
            access = Access("stores", count)
            yield from self._named(number, op, self.tokens.read(plane, access, clock), "waits")
        self.stored.append((op.region, *self._bytes(op), number))

    def _route(self, number: int, op: Instruction) -> Iterator[Hazard]:
        clock, done = self.order.route(op), Access("routes", len(self.numbers["route"]))
        words = np.arange(memmap.words(self.arch, op.experts))
        address = op.src_addr + np.arange(op.rows)[:, None] * op.src_stride + words
        for plane in self.at.planes(address, True):
            yield from self._named(number, op, self.tokens.read(plane, done, clock), "waits")
        entries = self.at.route(op)
        yield from self._named(number, op, self.index.write(entries, done, clock), "waits")

    def _bytes(self, op: Instruction) -> tuple[int, int]:
        """First byte in DRAM and the one behind, for any task."""
        if op.opcode is Opcode.LOAD_INDEX:
            size = op.count * formats.INDEX_BYTES
        else:
            size = op.rows * op.words * self.arch.depth * (2 if op.wide else 1)
        return op.offset, op.offset + size + 255 * op.task_stride * self.arch.depth

    def _from_dram(self, number: int, op: Instruction) -> Iterator[Hazard]:
        first, end = self._bytes(op)
        for region, start, stop, store in self.stored:
            if region == op.region and start < end and first < stop:
                yield Hazard(number, store, f"{Region(region).name} bytes",
                             (max(start, first), min(stop, end) - 1), "may read too early the",
                             "no instruction but END waits for a STORE")

    def _streams(self) -> Iterator[Hazard]:
        """Instructions and weights are read ahead: nobody may store there."""
        reads = [(0, len(self.code) * INSTRUCTION_BYTES, 0)]
        depth = self.arch.depth
        for number, op in enumerate(self.code):
            if op.opcode is Opcode.MATMUL and op.stream_words:
                size = (op.stream_words + 255 * op.task_stride) * depth
                reads.append((op.stream_offset, op.stream_offset + size, number))
        for region, start, stop, store in self.stored:
            for first, end, reader in reads if region == Region.PROGRAM else ():
                if start < end and first < stop:
                    yield Hazard(store, reader, "PROGRAM bytes",
                                 (max(start, first), min(stop, end) - 1), "may overwrite the",
                                 "programs are read ahead of time")

    # Matrix products ---------------------------------------------------------------------
    def _matmul(self, number: int, op: Instruction) -> Iterator[Hazard]:
        moments = self.order.matmul(op)
        n, key = moments.number, moments.key
        source = self.at.rows(op, op.src_list, op.src_list_base)
        target = self.at.rows(op, op.dst_list, op.dst_list_base)
        loads, fetched = Access("loader", n + 1), Access("fetch", n + 1)
        finished = Access("epilogue", (n + 1) * MATMUL, certain=key is None)
        for fault in self.slots.matmul(op, moments):
            earlier = self.numbers["matmul"][fault.earlier]
            yield Hazard(number, earlier, f"{fault.name} half", (fault.slot, fault.slot),
                         fault.what, fault.missing)

        # Repetitions wait for nothing new: all is read at first, and written at the end.
        many = repetitions(op)
        tiles = [plane for one in many for plane in self.at.stationary(one)]
        for plane in tiles:
            yield from self._named(
                number, op, self.tokens.read(plane, loads, moments.tiles), "tiles")
        operand = [] if self.at.is_zero(op) else [
            plane for one in many for plane in self.at.operand(one, source)
        ]
        know = self._at_rows(moments, source)
        for plane in operand:
            yield from self._named(number, op, self.tokens.read(plane, fetched, know), "rows")
        if op.transform in (Transform.NORM, Transform.EXP2):
            # With the first word of a row, or of a tap.
            every = streamed(op).width
            first = {name: value[:, ::every] for name, value in know.items() if name != "partly"}
            first["partly"] = replace(know["partly"], levels=know["partly"].levels[:, ::every])
            for one in many:
                yield from self._named(number, op, self.statistics.read(
                    self.at.normalised(one, source), fetched, first), "rows")
        if op.row_scale == RowScale.STATISTIC:
            # A row is divided when it has been streamed to its end, by the engine that writes
            # statistics: only what its fetch has waited for is certain.
            last = {name: value[:, -1:] for name, value in know.items() if name != "partly"}
            last["partly"] = replace(know["partly"], levels=know["partly"].levels[:, -1:])
            for one in many:
                yield from self._named(number, op, self.statistics.read(
                    (one.stat_src + target.ids)[:, None], fetched, last), "rows")
        # Of what it reads itself, see _itself.
        begin = {**moments.epilogue._asdict(), "fetch": n + 1, "loader": n + 1}
        for listed, base, access, clock in (
            (op.src_list, op.src_list_base, fetched, moments.fetch),
            (op.dst_list or op.gate, op.dst_list_base, finished, moments.epilogue),
        ):
            entries = self.at.listed(op, listed, base)
            what = "rows" if access is fetched else "old"
            yield from self._named(number, op, self.index.read(entries, access, clock), what)

        first_tile, last_tile = self.at.tiles_of(op)
        results = {**begin, "loads": moments.tile_loads[first_tile][None, :]}
        combined = [item for one in many for item in self.at.old(one, target)]
        for fresh, planes in combined:
            for plane in planes:
                yield from self._named(
                    number, op, self.tokens.read(plane, finished, results, fresh=fresh), "old")
        done = self._done(op, n, target, last_tile)
        result = [plane for one in many for plane in self.at.result(one, target)]
        for plane in result:
            yield from self._named(number, op, self.tokens.write(
                plane, Access("epilogue", done, certain=finished.certain and target.ordered),
                results), "old")
        if op.stats != Stats.NONE:
            row = n * MATMUL + 2 + np.arange(len(target.ids))
            by_row = target.ordered and not op.repeats
            for one in many:
                yield from self._named(number, op, self.statistics.write(
                    one.stat_dst + target.ids,
                    Access("epilogue", row if by_row else (n + 1) * MATMUL,
                           certain=finished.certain and target.ordered), begin), "old")
        if op.repeats:
            yield from self._repeated(number, [*operand, *tiles], result)
        else:
            yield from self._itself(number, op, (source, target), (operand, tiles, result))

    def _at_rows(self, moments: Moments, rows: Rows) -> dict[str, Any]:
        """Progress known at every row and k tile of the operand."""
        known = {name: np.full((1, 1), value) for name, value in moments.fetch._asdict().items()}
        # Any row may be the first one if their order is not known.
        some = slice(len(rows.ids)) if rows.ordered else slice(1)
        levels = replace(moments.partly, levels=moments.partly.levels[some])
        return {**known, "epilogue": moments.rows_epilogue[some],
                "loads": moments.rows_loads[some], "partly": levels}

    def _done(self, op: Instruction, n: int, rows: Rows, last_tile: Index) -> Index:
        """Progress of the epilogue that says that a word ``[rows, words]`` is written."""
        row = 2 + np.arange(len(rows.ids)) if rows.ordered else np.full(len(rows.ids), MATMUL)
        if op.repeats:
            return np.full((len(rows.ids), len(last_tile)), (n + 1) * MATMUL)
        return n * MATMUL + np.where(last_tile == op.c_tiles - 1, row[:, None], 1)

    def _itself(
        self, number: int, op: Instruction, rows: tuple[Rows, Rows],
        words: tuple[list[Index], list[Index], list[Index]],
    ) -> Iterator[Hazard]:
        """A MATMUL reads until its last c tile, and writes from its first one on."""
        (source, target), (operand, tiles, result) = rows, words
        written = np.concatenate([plane.reshape(-1) for plane in result])
        if op.c_tiles > 1:
            for plane in tiles:
                yield from self._own(number, np.intersect1d(plane, written), "tiles")
        first_tile, _ = self.at.tiles_of(op)
        zero, clash = self.at.zero_tiles(op), []
        for read in operand:
            if not np.isin(read, written).any():
                continue
            for write in result:
                # By the word: the row that writes it, and the first c tile that does.
                of_row = np.broadcast_to(np.arange(len(write))[:, None], write.shape)
                writer = dict(zip(write.flat, zip(of_row.flat, np.broadcast_to(
                    first_tile, write.shape).flat, strict=True), strict=True))
                for (row, k), word in np.ndenumerate(read):
                    if word in writer:
                        other, tile = writer[word]
                        # In the writing tile, a row itself has been read before.
                        behind = tile + _aligned(source, row, target, int(other))
                        if not zero[behind:, k].all():
                            clash.append(word)
        yield from self._own(number, np.array(clash, np.int64), "rows")

    def _repeated(
        self, number: int, read: list[Index], written: list[Index]
    ) -> Iterator[Hazard]:
        """Of its own results, a repeated MATMUL reads none."""
        ours = np.unique(np.concatenate([plane.reshape(-1) for plane in written]))
        theirs = np.unique(np.concatenate([plane.reshape(-1) for plane in read]))
        yield from self._own(number, np.intersect1d(ours, theirs), "operands")

    def _own(self, number: int, words: Index, what: str) -> Iterator[Hazard]:
        if len(words):
            where = int(words.min()), int(words.max())
            yield Hazard(number, number, "token memory words", where,
                         f"may read its {what} too late from the",
                         "an earlier c tile of its own overwrites them")

    # Names -------------------------------------------------------------------------------
    def _named(
        self, number: int, op: Instruction, conflicts: Iterable[Conflict], use: str
    ) -> Iterator[Hazard]:
        for conflict in conflicts:
            engine, progress = conflict.engine, conflict.progress
            if engine == NEVER:
                yield Hazard(number, number, conflict.memory, conflict.words, "reads the",
                             "nothing has written them before")
                continue
            kind, size, begun = {
                "epilogue": ("matmul", MATMUL, 1), "fetch": ("matmul", 1, 1),
                "loader": ("matmul", 1, 1), "loads": ("load", LOAD, 1),
                "stores": ("store", 1, 1), "routes": ("route", 1, 1),
            }[engine]
            earlier = self.numbers[kind][(progress - begun) // size]
            what = "may read too early the" if conflict.reads else "may overwrite too early the"
            yield Hazard(number, earlier, conflict.memory, conflict.words, what,
                         _missing(op, use, engine))


def _missing(op: Instruction, use: str, engine: str) -> str:
    """Which field should have waited."""
    if engine == "stores":
        return "no instruction but END waits for a STORE"
    if engine == "routes":
        return "no MATMUL with expert_rows lies between them"
    if use == "waits":
        return f"its wait_distance ({op.wait_distance}) does not cover that"
    matmul = engine != "loads"
    names = {
        "tiles": ("st_distance",) if matmul else ("load_distance",),
        "rows": ("dep_distance", "dep_k", "dep_end") if matmul else (
            "load_distance", "load_stream"),
        "old": ("dep_distance",) if matmul else ("epi_load_distance", "epi_load_stream"),
    }[use]
    values = ", ".join(f"{name} {getattr(op, name)}" for name in names)
    return f"its waits ({values}) do not cover that"


def _aligned(source: Rows, row: int, target: Rows, other: int) -> bool:
    """Whether a row of the operand and one of the result are the same row in the same order."""
    if source.ordered and target.ordered:
        return row == other
    # Both are the queue.
    return not source.ordered and not target.ordered and source.ids[row] == target.ids[other]
