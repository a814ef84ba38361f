"""The row fetch: a row a cycle, unless it has to wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from vitrify.arch.access import Taps, streamed
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction

from .loader import NEVER, Tile
from .recorder import Observer
from .timing import MIN_PASS
from .tokens import Cycles, Reads, meets, spread

#: Reads of the epilogue that rows of the same pass cause.
Own = Callable[[Cycles], dict[int, int]]

#: Rounds in which a pass and the reads that it causes find their places.
_ROUNDS = 3
#: What a row may wait for, in the order in which the blame is given (as the core's counters).
STALLS = ("tile", "dependency", "drain", "bank", "empty")


@dataclass
class RowTimes:
    """A MATMUL's rows: cycles of the first and the last, and the cycles that none was issued.

    ``reasons`` divides those lost to tiles by what the tiles waited for.
    """

    start: int = -1
    end: int = -1
    rows: int = 0
    stalls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STALLS, 0))
    reasons: dict[str, int] = field(default_factory=dict)


class Rows:
    """Passes in order."""

    def __init__(self, arch: ArchConfig, observer: Observer) -> None:
        self._arch, self._observer = arch, observer
        self.reads = Reads(arch)
        #: Cycle of the latest row, and of the first row of the latest pass.
        self.time = -1
        self.taken = NEVER

    def banks(self, op: Instruction, c: int, k: int) -> Cycles:
        """Bank of every row's word in k tile ``k`` of c tile ``c``."""
        rows = streamed(op)
        base = rows.base + int(rows.row_words(c)[k % rows.width])
        if rows.taps is None:
            return self.reads.banks(base, rows.stride, op.rows, rows.wide)
        return self.reads.codes(base + tensor_rows(op, k) * rows.stride, rows.wide)

    def issue(
        self, op: Instruction, tile: Tile, available: int, needed: Cycles | None,
        drained: Cycles | None, rivals: dict[int, int], own: Own | None, banks: Cycles,
        times: RowTimes,
    ) -> Cycles:
        """Cycles in which the rows of a pass are issued.

        Parameters
        ----------
        tile : the pass's stationary tile
        available : cycle in which the instruction is at hand
        needed : cycles from which each row's data are there; ``None``: long since
        drained : the same for each row's place in the drain memory
        rivals : reads of the epilogue, see :meth:`Reads.against`
        own : those that these very rows cause, from the rows' cycles
        banks : of the rows
        times : takes start, end and stalls
        """
        free = self.time + 1
        begin = max(free, available)
        stalls = times.stalls
        stalls["empty"] += begin - free
        swapped = max(begin, tile.ready, self.taken + MIN_PASS)
        if swapped > begin:
            stalls["tile"] += swapped - begin
            times.reasons[tile.why] = times.reasons.get(tile.why, 0) + swapped - begin
        cycles = np.arange(swapped, swapped + op.rows)
        waits: dict[str, int] = {}
        for name, ready in (("dependency", needed), ("drain", drained)):
            if ready is not None:
                later = spread(np.maximum(cycles, ready), 1)
                waits[name] = int(later[-1] - cycles[-1])
                cycles = later
        later = _pass_by(cycles, banks, rivals) if rivals else cycles
        for _ in range(_ROUNDS if own else 0):
            assert own is not None
            caused = own(later)
            if not caused:
                break
            later = _pass_by(cycles, banks, rivals | caused)
        waits["bank"] = int(later[-1] - cycles[-1])
        cycles = later
        for name, count in waits.items():
            stalls[name] += count
        self._observer.rows(free, begin, swapped, tile.why, cycles, waits)
        self.time, self.taken = int(cycles[-1]), int(cycles[0])
        self.reads.add(cycles, banks)
        times.rows += op.rows
        if times.start < 0:
            times.start = self.taken
        times.end = self.time
        return cycles


def tensor_rows(op: Instruction, k: int) -> Cycles:
    """Rows of the tensor that a pass reads, or asks for where zeros are read."""
    rows = streamed(op)
    if rows.taps is None:
        return np.arange(op.rows)
    return np.maximum(_pixels(rows.taps, op.rows)[:, k // rows.width], 0)


@lru_cache(maxsize=16)
def _pixels(taps: Taps, rows: int) -> Cycles:
    return taps.pixels(rows)


def _pass_by(cycles: Cycles, banks: Cycles, rivals: dict[int, int]) -> Cycles:
    """``cycles`` moved on past reads of the same bank that come first."""
    time, later = int(cycles[0]) - 1, []
    for cycle, bank in zip(cycles.tolist(), banks.tolist(), strict=True):
        time = max(time + 1, cycle)
        while time in rivals and meets(rivals[time], bank):
            time += 1
        later.append(time)
    return np.array(later)
