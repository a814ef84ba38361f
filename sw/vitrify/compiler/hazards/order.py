"""What every engine of the core knows about the others' progress, from the instructions alone.

The engines (``docs/microarchitecture.md``) run decoupled, each in program order, and wait for each
other only where an instruction says so.  :class:`Order` follows a program and gives, for every
moment at which an engine touches a memory, a :class:`Clock`: how far each engine has got for sure.
What one engine knows passes to whoever waits for it, so that waiting is transitive.

Only waits count that the instruction set promises.  Sizes of queues and buffers also keep engines
together (parameter slots, accumulators, run-ahead windows); a program must not rely on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitrify.arch import access
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Stationary

Progress = npt.NDArray[np.int64]

#: Progress of the epilogue: ``number * MATMUL`` has finished every MATMUL before ``number``; one
#: more, and its last c tile has begun; one more for each row of that tile.
MATMUL = 1 << 14
#: Progress of the loads: ``number * LOAD`` and the elements of that LOAD.
LOAD = 1 << 26


class Clock(NamedTuple):
    """Progress that is certain: fetch, loader and routes count finished instructions."""

    epilogue: int = 0
    fetch: int = 0
    loader: int = 0
    loads: int = 0
    routes: int = 0

    def __or__(self, other: tuple[int, ...]) -> Clock:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is known to somebody who knows both."""
        return Clock(*map(max, self, other))


NOTHING = Clock()


class Key(NamedTuple):
    """When a MATMUL with ``expert_rows`` is executed: the queue has an entry ``first``."""

    route: int
    expert: int
    first: int


def implies(key: Key | None, other: Key | None) -> bool:
    """Whether an instruction under ``other`` is executed whenever one under ``key`` is."""
    if other is None:
        return True
    return key is not None and key[:2] == other[:2] and other.first <= key.first


@dataclass
class _Chain:
    """Clocks at the end of one engine's part of every MATMUL so far."""

    #: Of those that are always executed: everything known behind number ``i``.
    certain: list[Clock] = field(default_factory=list)
    #: Of the others, by route and expert.
    conditional: dict[tuple[int, int], list[tuple[int, Key, Clock]]] = field(default_factory=dict)

    def add(self, key: Key | None, clock: Clock) -> None:
        number = len(self.certain)
        known = self.certain[-1] if self.certain else NOTHING
        self.certain.append(known if key else known | clock)
        if key:
            self.conditional.setdefault(key[:2], []).append((number, key, clock))

    def behind(self, number: int, key: Key | None) -> Clock:
        """What is known when MATMUL ``number`` is behind, to an instruction under ``key``."""
        if number < 0:
            return NOTHING
        known = self.certain[number]
        for other, condition, clock in self.conditional.get(key[:2], ()) if key else ():
            if other <= number and implies(key, condition):
                known |= clock
        return known


@dataclass(frozen=True)
class Partly:
    """Progress within whichever of some MATMULs is the last one executed.

    What is waited for may be left out, and then another MATMUL stands for it: one from ``first``
    to ``last``.  Those before it have finished.  ``levels [rows, k tiles]``: what is known of it,
    counted as behind ``MATMUL``.
    """

    first: int
    last: int
    levels: Progress


@dataclass(frozen=True)
class Moments:
    """Clocks of one MATMUL: when its engines touch what."""

    number: int
    key: Key | None
    #: Before gains and table are overwritten, and before tiles are read.
    gains: Clock
    table: Clock
    tiles: Clock
    #: Before any row is fetched; and for row r, k tile k of the first c tile.
    fetch: Clock
    rows_epilogue: Progress
    rows_loads: Progress
    partly: Partly
    #: Before the first result, and before those of each c tile: loads.
    epilogue: Clock
    tile_loads: Progress


class Order:
    """Follows a program: one call for each instruction."""

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._rows: list[int] = []
        self._keys: list[Key | None] = []
        #: What the epilogue knows when a MATMUL begins.
        self._begun: list[Clock] = []
        self._fetched, self._loaded, self._finished = _Chain(), _Chain(), _Chain()
        self._loads: list[Clock] = []
        self._dispatch, self._stored, self._route = NOTHING, NOTHING, NOTHING
        self._routes = 0

    @property
    def matmuls(self) -> int:
        """MATMULs so far."""
        return len(self._keys)

    # Moves -------------------------------------------------------------------------------
    def load(self, op: Instruction) -> Clock:
        """LOAD or LOAD_INDEX: what is known before it writes."""
        start = self._dispatch | self._waits(op)
        if self._loads:
            start |= self._loads[-1]
        self._loads.append(start | Clock(loads=(len(self._loads) + 1) * LOAD))
        return start

    def store(self, op: Instruction) -> Clock:
        """STORE: what is known before it reads."""
        self._stored |= self._dispatch | self._waits(op)
        return self._stored

    def route(self, op: Instruction) -> Clock:
        """ROUTE: what is known before it reads and writes."""
        self._dispatch |= self._route
        self._routes += 1
        start = self._dispatch | self._waits(op)
        self._route = start | Clock(routes=self._routes)
        return start

    def _waits(self, op: Instruction) -> Clock:
        return self._behind(len(self._keys) - op.wait_distance, None) if op.wait_distance else (
            NOTHING
        )

    # Matrix products ---------------------------------------------------------------------
    def matmul(self, op: Instruction) -> Moments:
        """MATMUL: what each engine knows."""
        number = len(self._keys)
        key = Key(self._routes, op.expert, op.expert_first) if op.expert_rows else None
        if key:
            self._dispatch |= self._route
        gains, table, tiles = self._load(op, number, key)
        fetch, rows, words, partly = self._fetch(op, number, key, tiles)
        epilogue, follows = self._epilogue(op, number, key, fetch, rows)
        self._begun.append(epilogue)
        end = self._fetched.behind(number - 1, key) | fetch | Clock(
            epilogue=self._last_row(op, number, rows), fetch=number + 1, loader=number + 1,
            loads=int(words.max()),
        )
        self._loaded.add(key, tiles)
        self._fetched.add(key, end)
        self._finished.add(key, end | epilogue | Clock(
            epilogue=(number + 1) * MATMUL, loads=int(follows.max()),
        ))
        self._keys.append(key)
        self._rows.append(op.rows)
        return Moments(number, key, gains, table, tiles, fetch, rows, words, partly,
                       epilogue, follows)

    def _load(
        self, op: Instruction, number: int, key: Key | None
    ) -> tuple[Clock, Clock, Clock]:
        start = self._dispatch | self._loaded.behind(number - 1, key) | Clock(loader=number)
        # Between the one before the last and this one is a MATMUL in every case.
        old = self._certain(number - 1, key) - 1
        gains = table = start
        if op.load_gain and old >= 0:
            gains = start | self._fetched.behind(old, key) | Clock(fetch=old + 1)
        table = gains
        if op.load_table:
            table = gains | self._behind(old, key)
        tiles = table
        if op.stationary in (Stationary.ROWS, Stationary.COLUMNS) and op.st_distance:
            tiles = table | self._behind(number - op.st_distance, key)
        if op.stationary == Stationary.STORED:
            tiles = table | self._load_behind(op.load_distance)
        return gains, table, tiles

    def _fetch(
        self, op: Instruction, number: int, key: Key | None, tiles: Clock
    ) -> tuple[Clock, Progress, Progress, Partly]:
        start = (
            self._dispatch | self._fetched.behind(number - 1, key) | tiles | Clock(fetch=number)
        )
        shape = (op.rows, op.k_tiles)
        row, k = np.ogrid[: op.rows, : op.k_tiles]
        words = np.zeros(shape, np.int64)
        if op.load_distance and op.load_stream:
            load = len(self._loads) - op.load_distance
            if load >= 0:
                start |= self._following(load)
                # How many rows a queue has is not known.
                words = load * LOAD + (1 if op.expert_rows else k * op.rows + row + 1) + 0 * words
        else:
            start |= self._load_behind(op.load_distance)
        rows, levels = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        target = number - op.dep_distance
        producer = self._certain(target, key) if op.dep_distance else -1
        if op.dep_distance and op.dep_end:
            start |= self._behind(target, key)
        elif producer >= 0:
            start |= self._behind(producer - 1, key) | self._begun[producer]
            if op.tapped or op.k_step:
                row, k = _places(op)
            levels = self._levels(op, producer, row, k)
            finished = (producer + 1) * MATMUL
            if op.src_list or op.repeats:
                # A list may ask for any row, so it waits for all of them; repetitions do as well.
                rows = np.where(k < op.dep_k, producer * MATMUL + levels, (target + 1) * MATMUL)
            else:
                # The last row of the last c tile is the end.
                ends = levels > self._rows[producer]
                rows = np.where(ends, finished, producer * MATMUL + levels)
        return (
            start, np.maximum(rows, start.epilogue), np.maximum(words, start.loads),
            Partly(producer, target, levels),
        )

    def _levels(self, op: Instruction, producer: int, row: Progress, k: Progress) -> Progress:
        """What a row and k tile have waited for: the last c tile, and how many of its rows."""
        if op.tapped or op.k_step:
            waits = np.where(k < op.dep_k, 1, 2 + row)
            # K tile by k tile, row by row: whoever comes later knows as much.
            known = np.maximum.accumulate(waits.T.reshape(-1))
            return known.reshape(waits.T.shape).T
        whole = row if op.expert_rows else row[-1:]     # behind the first pass that waits
        if op.expert_rows and self._alike(op, producer):
            whole = np.array([[op.rows - 1]])
        return np.where(k < op.dep_k, 1, 2 + np.where(k == op.dep_k, row, whole))

    def _alike(self, op: Instruction, producer: int) -> bool:
        """Whether ``op`` has the same rows of a queue."""
        key = Key(self._routes, op.expert, op.expert_first)
        return self._keys[producer] == key and self._rows[producer] == op.rows

    def _last_row(self, op: Instruction, number: int, rows: Progress) -> int:
        """Progress of the epilogue that is known when all rows have been fetched."""
        if not op.expert_rows:
            return int(rows.max())
        producer = number - op.dep_distance
        waits = op.dep_distance and producer >= 0 and op.dep_k < op.k_tiles
        if waits and self._alike(op, producer):
            return (producer + 1) * MATMUL
        return int(rows[0].max())

    def _epilogue(
        self, op: Instruction, number: int, key: Key | None, fetch: Clock, rows: Progress
    ) -> tuple[Clock, Progress]:
        start = fetch | self._finished.behind(number - 1, key) | Clock(int(rows[0].max()))
        tiles = np.zeros(op.c_tiles, np.int64)
        if op.epi_load_distance and op.epi_load_stream:
            load = len(self._loads) - op.epi_load_distance
            if load >= 0:
                start |= self._following(load)
                width, depth = self._arch.tile_width(op.nibbles), self._arch.depth
                words = np.arange(op.c_tiles) * width // depth + max(1, width // depth)
                tiles = load * LOAD + (1 if op.expert_rows else words * op.rows) + 0 * tiles
        else:
            start |= self._load_behind(op.epi_load_distance)
        return start, np.maximum(tiles, start.loads)

    # Knowledge ---------------------------------------------------------------------------
    def _certain(self, number: int, key: Key | None) -> int:
        """The last MATMUL up to ``number`` that is executed if one under ``key`` is; or -1."""
        while number >= 0 and not implies(key, self._keys[number]):
            number -= 1
        return number

    def _behind(self, number: int, key: Key | None) -> Clock:
        """When MATMUL ``number``, or the last one executed before it, has finished."""
        if number < 0:
            return NOTHING
        return self._finished.behind(number, key) | Clock(
            (number + 1) * MATMUL, number + 1, number + 1
        )

    def _load_behind(self, distance: int) -> Clock:
        load = len(self._loads) - distance
        return self._loads[load] if distance and load >= 0 else NOTHING

    def _following(self, load: int) -> Clock:
        """When a LOAD has written its first element."""
        return self._loads[load]._replace(loads=load * LOAD + 1)


def _places(op: Instruction) -> tuple[Progress, Progress]:
    """Row of the tensor (0: none) and word of it ``[rows, k tiles]`` that are waited for."""
    rows = access.streamed(op)
    straight = replace(rows, list_base=None)
    row = np.repeat(np.maximum(straight.row_ids(), 0), rows.width, axis=1)
    word = np.tile(rows.row_words(), op.k_tiles // rows.width)
    return row, np.broadcast_to(word, row.shape)
