"""The epilogue: a lane group a cycle, from drain rows to visible results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vitrify.arch import access, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction
from vitrify.arch.modes import ADDING_OUTPUTS, NORM_STATS, Stats

from .recorder import Observer
from .timing import REVISIT, Timing
from .tokens import Cycles, Reads, spread

#: Cycles from a command, or the end of its load, to its first lane group.
COMMAND = 8
#: Cycles from a lane group to the row that may take its place in the drain memory.
_REPLACED = 3


@dataclass
class Results:
    """What a MATMUL's epilogue does when; rows are those of its last c tile."""

    first_write: int = -1
    last_write: int = -1
    #: Lane groups in all.
    groups: int = 0
    #: Cycle from which the c tile in progress is the last one.
    last_tile: int = 0
    #: Cycles in which the rows of the last c tile are visible.
    rows: Cycles = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def finished(self) -> int:
        """Cycle in which everything is visible."""
        return int(self.rows[-1])


class Epilogue:
    """C tiles in order.

    ``done`` lists the cycles in which they are visible; ``replaced`` holds, for every row of the
    latest one, the cycle from which a row may take its place in the drain memory.
    """

    def __init__(self, arch: ArchConfig, timing: Timing, observer: Observer) -> None:
        self._arch, self._timing, self._observer = arch, timing, observer
        self.reads = Reads(arch)
        self.done: list[int] = []
        self.replaced: Cycles = np.zeros(0, np.int64)
        #: Latest lane group, latest write, latest visible row, latest LayerNorm statistics.
        self.time = self._written = self._visible = self._normed = 0

    def start(self, op: Instruction, accepted: int, table: int, load: int) -> int:
        """Cycle of a MATMUL's first lane group, as far as it does not hang on its rows."""
        cycle = max(accepted, load) + COMMAND
        if op.activation:
            cycle = max(cycle, table)
        if op.output in ADDING_OUTPUTS:
            cycle = max(cycle, self._written + 2)
        if op.stats in (Stats.MAX, Stats.SUM):
            cycle = max(cycle, self._normed + 2)
        return cycle

    def groups(self, op: Instruction, c: int) -> int:
        """Lane groups of a row in c tile ``c``."""
        last = c == op.c_tiles - 1
        columns = op.c_last if last else self._arch.tile_width(op.nibbles)
        return -(-columns // self._arch.lanes)

    def choose(self, op: Instruction, c: int, start: int, drained: Cycles) -> Cycles:
        """Cycle of each row's first lane group; ``drained``: when its sums are there."""
        ready = np.maximum(drained, max(start, self.time + self._pause(op, c)))
        return spread(ready, self.groups(op, c))

    def _pause(self, op: Instruction, c: int) -> int:
        """Cycles to the latest lane group: few rows pause before the second c tile of a pass."""
        second = c % memmap.tiles_per_pass(self._arch, op.nibbles)
        return REVISIT if second and op.rows < REVISIT else 1

    def old_values(self, op: Instruction, c: int, chosen: Cycles) -> tuple[Cycles, Cycles]:
        """Cycles and banks of the reads of what results are combined with."""
        count, rows = self.groups(op, c), access.old_values(self._arch, op)
        assert rows is not None
        first = rows.base + c * self._arch.tile_width(op.nibbles) // self._arch.depth
        banks = self.reads.pair_codes(first + rows.stride * np.arange(len(chosen)), rows.wide)
        cycles = chosen[:, None] + 1 + np.arange(count)
        return cycles.reshape(-1), np.repeat(banks, count)

    def finish(
        self, op: Instruction, c: int, chosen: Cycles, results: Results, number: int
    ) -> None:
        """Take the rows of c tile ``c`` of MATMUL ``number`` at the cycles ``chosen``."""
        timing, count = self._timing, self.groups(op, c)
        self._observer.groups(number, c, chosen, count)
        last = chosen + count - 1
        if op.output in ADDING_OUTPUTS:
            self.reads.add(*self.old_values(op, c, chosen))
        self.time = int(last[-1])
        self.replaced = last + _REPLACED
        written = last + timing.result
        self._written = int(written[-1])
        visible = written + 1
        final = c == op.c_tiles - 1
        if final and op.stats in NORM_STATS:
            visible += timing.row_norm + 1
            self._normed = int(visible[-1])
        elif final and op.stats != Stats.NONE:
            visible += timing.row_max
        visible = np.maximum.accumulate(np.maximum(visible, self._visible))
        self._visible = int(visible[-1])
        self.done.append(self._visible)
        if results.first_write < 0:
            results.first_write = int(chosen[0]) + timing.result
        if final:
            results.rows = visible
            results.last_write = self._written
        if final and c == 0:
            results.last_tile = int(visible[0])
        elif c == op.c_tiles - 2:
            results.last_tile = self._visible
        results.groups += count * len(chosen)
