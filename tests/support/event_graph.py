"""Every event of a small program as a node, every wait as an edge: the slow way to find hazards.

Written from ``docs/microarchitecture.md`` without the compiler's checker, which it judges: two
accesses to a word are ordered if a path leads from the first one's end to the second one's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode, Output, Stationary, Stats, Transform
from vitrify.golden.machine import Machine
from vitrify.program import Program


@dataclass(frozen=True)
class Step:
    """An instruction as one run executes it: with its rows, and their numbers."""

    op: Instruction
    source: np.ndarray
    target: np.ndarray


def steps(program: Program, inputs: np.ndarray) -> list[Step]:
    """What a run on golden executes, skipped MATMULs with no rows."""
    machine = Machine(program.arch)
    code = list(program.instructions())
    none = np.zeros(0, np.int64)
    result = [Step(op, none, none) for op in code]

    def observe(number: int, op: Instruction, _written: np.ndarray) -> None:
        ids = [
            machine.index[base : base + op.rows].astype(np.int64) if listed else np.arange(op.rows)
            for listed, base in ((op.src_list, op.src_list_base), (op.dst_list, op.dst_list_base))
        ]
        result[number] = Step(op, ids[0], ids[1])

    machine.run(program.image, program.instruction_count, inputs, program.output_bytes, observe)
    return result


class EventGraph:
    """The events of a run whose waits may differ from the program's."""

    def __init__(self, arch: ArchConfig, run: list[Step]) -> None:
        self.arch = arch
        self.before: list[int] = []     # ancestors of every node, as a bit set
        #: Accesses to each word, in program order: engine, writes, start, end.
        self.accesses: dict[tuple[str, int], list[tuple[str, bool, int, int]]] = {}
        self.dispatch = self.route = -1
        #: Entries of the latest queues.
        self.queues = np.zeros(0, np.int64)
        self.tile = self.row = self.taken = self.visible = self.moved = self.stored = -1
        #: Of every MATMUL in the program: events by c tile and row; None if it was skipped.
        self.visibles: list[np.ndarray | None] = []
        self.fetched: list[int] = []
        self.loads: list[np.ndarray] = []
        for step in run:
            {
                Opcode.MATMUL: self.matmul, Opcode.LOAD: self.load, Opcode.STORE: self.store,
                Opcode.ROUTE: self.routed, Opcode.END: lambda _: None,
            }[step.op.opcode](step)

    def hazards(self) -> Iterator[tuple[str, int]]:
        """Words with two accesses that nothing orders."""
        for word, accesses in self.accesses.items():
            writer: tuple[str, bool, int, int] | None = None
            readers: list[tuple[str, bool, int, int]] = []
            for access in accesses:
                engine, writes, start, _ = access
                first = [writer] if writer else []
                for other in first + (readers if writes else []):
                    if other[0] != engine and not self.ordered(other[3], start):
                        yield word
                if writes:
                    writer, readers = access, []
                else:
                    readers.append(access)

    def ordered(self, first: int, second: int) -> bool:
        return first == second or bool(self.before[second] >> first & 1)

    def node(self, *parents: int) -> int:
        ancestors = 0
        for parent in parents:
            if parent >= 0:
                ancestors |= self.before[parent] | 1 << parent
        self.before.append(ancestors)
        return len(self.before) - 1

    def access(
        self, memory: str, words: np.ndarray, engine: str, writes: bool, start: int, end: int
    ) -> None:
        for word in np.asarray(words).reshape(-1):
            self.accesses.setdefault((memory, int(word)), []).append((engine, writes, start, end))

    def pairs(self, address: np.ndarray, wide: bool) -> np.ndarray:
        if not wide:
            return address
        planes = [memmap.pair_banks(self.arch, int(a)) for a in np.asarray(address).reshape(-1)]
        return np.array(planes)

    # Moves
    def wait(self, op: Instruction) -> int:
        return self.end_of(len(self.visibles) - op.wait_distance) if op.wait_distance else -1

    def end_of(self, number: int) -> int:
        """The end of the last MATMUL executed up to ``number``."""
        done = [v for v in self.visibles[: max(0, number + 1)] if v is not None]
        return int(done[-1][-1, -1]) if done else -1

    def load(self, step: Step) -> None:
        op = step.op
        self.moved = start = self.node(self.dispatch, self.moved, self.wait(op))
        events = []
        for word in range(op.words):
            for row in range(op.rows):
                self.moved = self.node(self.moved)
                events.append(self.moved)
                self.access("tokens", self.pairs(np.array([op.addr + word + row * op.stride]),
                                                 bool(op.wide)), "load", True, start, self.moved)
        self.loads.append(np.array(events))

    def store(self, step: Step) -> None:
        op = step.op
        self.stored = self.node(self.dispatch, self.stored, self.wait(op))
        address = op.addr + np.arange(op.words)[:, None] + np.arange(op.rows) * op.stride
        done = self.node(self.stored)       # nobody waits for it
        self.access("tokens", self.pairs(address, bool(op.wide)), "store", False, self.stored, done)

    def routed(self, step: Step) -> None:
        op = step.op
        self.dispatch = self.node(self.dispatch, self.route)
        start = self.node(self.dispatch, self.wait(op))
        self.route = self.node(start)
        words = np.arange(memmap.words(self.arch, op.experts))
        address = op.src_addr + np.arange(op.rows)[:, None] * op.src_stride + words
        self.access("tokens", self.pairs(address, True), "router", False, start, self.route)
        if not op.joins:
            size = memmap.queue_entries(op.rows, op.choices, op.experts, op.room)
            self.queues = op.base + np.arange(size)
        self.access("index", self.queues, "router", True, start, self.route)

    # Matrix products
    def matmul(self, step: Step) -> None:
        op = step.op
        if op.expert_rows:
            self.dispatch = self.node(self.dispatch, self.route)
        if op.rows == 0:
            self.visibles.append(None)
            return
        number = len(self.visibles)
        executed = [v for v in self.visibles if v is not None]
        # Loader.
        gain = self.node(self.dispatch, self.tile,
                         self.fetched[-2] if op.load_gain and len(self.fetched) > 1 else -1)
        if op.load_gain:
            self.access("gains", np.array([op.gain_slot]), "loader", True, gain, gain)
        table = self.node(gain, int(executed[-2][-1, -1]) if op.load_table and len(executed) > 1
                          else -1)
        if op.load_table:
            self.access("tables", np.array([op.table_slot]), "loader", True, table, table)
        wait = -1
        if op.stationary in (Stationary.ROWS, Stationary.COLUMNS) and op.st_distance:
            wait = self.end_of(number - op.st_distance)
        if op.stationary == Stationary.STORED:
            wait = int(self._load(op.load_distance)[-1])
        self.tile = self.node(table, wait)
        tiles = {}
        for c in range(op.c_tiles):
            for k in range(op.k_tiles):
                self.tile = self.node(self.tile)
                tiles[c, k] = self.tile
                self.access("tokens", self._tile(op, c, k), "loader", False, self.tile, self.tile)
        # Fetch.
        rows, reads = {}, {}
        for c in range(op.c_tiles):
            for k in range(op.k_tiles):
                for r in range(op.rows):
                    self.row = self.node(
                        self.row, self.dispatch, tiles[c, k], *self._row_waits(op, number, k, r))
                    rows[c, k, r] = self.row
                    reads.setdefault((k, r), []).append(self.row)
        self.fetched.append(self.row)
        wide = op.transform in (Transform.NORM, Transform.SCALE)
        if op.stationary == Stationary.COLUMNS and not op.multiplier and not op.row_scale:
            reads = {}      # times zero
        for (k, r), events in reads.items():
            address = op.src_addr + step.source[r] * op.src_stride + k
            for event in (events[0], events[-1]):
                words = self.pairs(np.array([address]), wide)
                self.access("tokens", words, "fetch", False, event, event)
                if op.transform in (Transform.NORM, Transform.EXP2):
                    entry = np.array([op.stat_src + step.source[r]])
                    self.access("stats", entry, "fetch", False, event, event)
        if wide:
            self.access("gains", np.array([op.gain_slot]), "fetch", False, rows[0, 0, 0], self.row)
        if op.src_list:
            entries = op.src_list_base + np.arange(op.rows)
            self.access("index", entries, "fetch", False, rows[0, 0, 0], self.row)
        self._epilogue(step, rows)
        if op.activation:
            visible = self.visibles[-1]
            assert visible is not None
            self.access("tables", np.array([op.table_slot]), "epilogue", False, self.began,
                        int(visible[-1, -1]))

    def _load(self, distance: int) -> np.ndarray:
        """Events of a LOAD; one that is long past, if it belongs to the job before."""
        past = not distance or distance > len(self.loads)
        return np.array([-1]) if past else self.loads[-distance]

    def _tile(self, op: Instruction, c: int, k: int) -> np.ndarray:
        arch = self.arch
        columns = op.c_last if c == op.c_tiles - 1 else arch.width
        depth = op.k_last if k == op.k_tiles - 1 else arch.depth
        if op.stationary == Stationary.ROWS:
            return op.st_addr + (c * arch.width + np.arange(columns)) * op.st_stride + k
        if op.stationary == Stationary.COLUMNS:
            channels = c * arch.width + np.arange(columns)
            rows = k * arch.depth + np.arange(depth)
            return op.st_addr + rows[:, None] * op.st_stride + np.unique(channels // arch.depth)
        if op.stationary == Stationary.STORED:
            first = op.st_addr + (c * op.k_tiles + k) * arch.tile_pairs(op.nibbles)
            return self.pairs(first + np.arange(arch.tile_pairs(op.nibbles)), True)
        return np.zeros(0, np.int64)

    def _row_waits(self, op: Instruction, number: int, k: int, r: int) -> Iterator[int]:
        load = self._load(op.load_distance)
        if op.load_distance:
            yield int(load[min(k * op.rows + r, len(load) - 1)] if op.load_stream else load[-1])
        if not op.dep_distance:
            return
        target = number - op.dep_distance
        while target >= 0 and self.visibles[target] is None:
            target -= 1
        if target < 0:
            return
        events = self.visibles[target]
        assert events is not None
        if op.dep_end or (op.src_list and k >= op.dep_k):
            yield int(events[-1, -1])
        elif k >= op.dep_k:
            yield int(events[-1, min(r, events.shape[1] - 1)])
        elif len(events) > 1:
            yield int(events[-2, -1])
        else:
            yield self.end_of(target - 1)

    def _epilogue(self, step: Step, rows: dict[tuple[int, int, int], int]) -> None:
        op, arch = step.op, self.arch
        columns = (op.c_tiles - 1) * arch.width + op.c_last
        events = np.zeros((op.c_tiles, op.rows), np.int64)
        adds = op.output == Output.ADD16
        load = self._load(op.epi_load_distance)
        self.taken = self.began = self.node(
            self.taken, self.dispatch, rows[0, op.k_tiles - 1, 0], self.visible if adds else -1,
            -1 if op.epi_load_stream else int(load[-1]))
        if op.dst_list:
            entries = op.dst_list_base + np.arange(op.rows)
            self.access("index", entries, "epilogue", False, self.began, self.began)
        for t in range(op.c_tiles):
            first = t * arch.width // arch.depth
            last = (min((t + 1) * arch.width, columns) - 1) // arch.depth
            for r in range(op.rows):
                follows = -1
                if op.epi_load_stream:
                    follows = int(load[min((last + 1) * op.rows, len(load)) - 1])
                self.taken = self.node(self.taken, rows[t, op.k_tiles - 1, r], follows)
                self.visible = self.node(self.visible, self.taken)
                events[t, r] = self.visible
                offset = step.target[r] * op.dst_stride + np.arange(first, last + 1)
                wide = op.output != Output.INT8
                for base in {op.dst_addr, op.add_addr if op.gate else op.dst_addr} if adds else ():
                    self.access("tokens", self.pairs(base + offset, wide), "epilogue", False,
                                self.taken, self.taken)
                self.access("tokens", self.pairs(op.dst_addr + offset, wide), "epilogue", True,
                            self.taken, self.visible)
                if op.stats != Stats.NONE and t == op.c_tiles - 1:
                    self.access("stats", np.array([op.stat_dst + step.target[r]]), "epilogue",
                                True, self.taken, self.visible)
        self.visibles.append(events)
