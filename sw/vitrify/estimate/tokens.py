"""Token-memory banks: who reads which in which cycle, and who has to wait for whom."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig

Cycles = npt.NDArray[np.int64]

#: Reads older than this many passes cannot meet new ones.
_KEPT = 12


class Reads:
    """Cycles in which one client reads, and the banks that it asks for, pass by pass.

    A bank set is coded as ``2 * pair + odd``, or ``-1 - pair`` when both banks are read.
    """

    def __init__(self, arch: ArchConfig) -> None:
        self._words = arch.bank_words
        self._log: deque[tuple[int, int, frozenset[int], Cycles, Cycles]] = deque(maxlen=_KEPT)

    def banks(self, first: int, stride: int, rows: int, wide: bool) -> Cycles:
        """Bank code of every row."""
        return self.codes(first + stride * np.arange(rows), wide)

    def codes(self, words: Cycles, wide: bool) -> Cycles:
        """Bank codes of word addresses."""
        bank = words // self._words
        return -1 - bank if wide else bank

    def pair_codes(self, words: Cycles, wide: bool) -> Cycles:
        """Bank codes of reads of both words of the pairs that words belong to."""
        return -1 - (words // self._words if wide else words // self._words >> 1)

    def add(self, cycles: Cycles, banks: Cycles) -> None:
        """Remember reads (``cycles`` ascending)."""
        if len(cycles):
            self._log.append(
                (int(cycles[0]), int(cycles[-1]), _pairs(banks), cycles, banks)
            )

    def against(self, start: int, end: int, banks: Cycles) -> dict[int, int]:
        """Reads from ``start`` to ``end`` in a pair of banks that ``banks`` names: cycle, code."""
        pairs = None
        found: dict[int, int] = {}
        for first, last, theirs, cycles, codes in self._log:
            if last < start or first > end:
                continue
            pairs = pairs or _pairs(banks)
            if not theirs.isdisjoint(pairs):
                found.update(zip(cycles.tolist(), codes.tolist(), strict=True))
        return found


def rivals(cycles: Cycles, codes: Cycles, banks: Cycles) -> dict[int, int]:
    """As :meth:`Reads.against`, of reads that are not yet certain."""
    if _pairs(codes).isdisjoint(_pairs(banks)):
        return {}
    return dict(zip(cycles.tolist(), codes.tolist(), strict=True))


def _pairs(banks: Cycles) -> frozenset[int]:
    low, high = int(banks.min()), int(banks.max())
    codes = {low} if low == high else set(np.unique(banks).tolist())
    return frozenset(-1 - code if code < 0 else code >> 1 for code in codes)


def meets(a: int, b: int) -> bool:
    """Whether two bank codes have a bank in common."""
    if a >= 0 and b >= 0:
        return a == b
    pair_a = -1 - a if a < 0 else a >> 1
    return pair_a == (-1 - b if b < 0 else b >> 1)


def spread(ready: Cycles, step: int) -> Cycles:
    """Earliest cycles, at least ``step`` apart, that are not before ``ready``."""
    offsets = step * np.arange(len(ready))
    return np.maximum.accumulate(ready - offsets) + offsets
