"""Row lists in the row-index memory: where they lie, and what has to be over before they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.formats import INDEX_BYTES

from .product import Picks

#: Number of no MATMUL or LOAD.
NEVER = -1
_MOST_ROW = (1 << 8 * INDEX_BYTES) - 1


@dataclass
class RowList:
    """A list that is, or was, in the row-index memory.

    ``load`` is the number of its LOAD_INDEX, ``user`` the latest MATMUL that reads it.
    """

    base: int
    size: int
    load: int
    user: int

    def overlaps(self, base: int, end: int) -> bool:
        """Whether it has an entry from ``base`` to ``end`` (exclusive)."""
        return self.base < end and base < self.base + self.size


class RowLists:
    """Lists one behind another, from the last entry of the memory down to the router's queues.

    What has been loaded stays until its entries are needed, and is not loaded again.
    """

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._known: dict[bytes, RowList] = {}
        self._next = arch.index_entries
        #: Entries that the queues of the latest ROUTE take.
        self._queues = 0
        #: What the latest ROUTE waits for.  A LOAD_INDEX behind it may come before the ROUTE does.
        self._retired: list[RowList] = []

    def find(self, entries: Picks) -> RowList | None:
        """The list with these entries, if it is there."""
        return self._known.get(_key(entries))

    def place(self, entries: Picks, load: int, user: int) -> tuple[RowList, int]:
        """Room for a list; also the latest MATMUL that reads what lay there, or ``NEVER``."""
        size = len(entries)
        if int(entries.max()) > _MOST_ROW:
            raise CapacityError(
                f"a list of rows picks row {entries.max()}, and its entries end at {_MOST_ROW}: "
                f"use smaller pictures or larger patches"
            )
        if size > self._arch.index_entries - self._queues:
            raise CapacityError(
                f"a list of {size} rows does not fit the row-index memory of arch "
                f"{self._arch.name!r}, which has {self._arch.index_entries} entries, of which "
                f"queues of experts take {self._queues}: raise index_entries"
            )
        if self._next - size < self._queues:
            self._next = self._arch.index_entries
        self._next -= size
        base, end = self._next, self._next + size
        retired = [each for each in self._retired if each.overlaps(base, end)]
        before = _latest([*self._evict(base, end), *retired])
        found = self._known[_key(entries)] = RowList(base, size, load, user)
        return found, before

    def route(self, entries: int, queued: int) -> int:
        """Give the first ``entries`` to queues; the latest MATMUL that reads what lay there.

        ``queued`` is the latest that uses the queues before.
        """
        before = RowList(0, self._queues, NEVER, queued)
        self._retired = [before, *self._evict(0, entries)]
        self._queues = entries
        return _latest(self._retired)

    def _evict(self, base: int, end: int) -> list[RowList]:
        gone = [key for key, each in self._known.items() if each.overlaps(base, end)]
        return [self._known.pop(key) for key in gone]


def _latest(lists: Sequence[RowList]) -> int:
    return max((each.user for each in lists), default=NEVER)


def _key(entries: Picks) -> bytes:
    return np.asarray(entries, "<u2").tobytes()
