"""Token-memory allocation: first fit by lifetime, with reads of one moment in different banks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError


class PlacementError(CapacityError):
    """The token memory has no room for a tensor; another placement of the others might.

    ``scattered``: there is enough, but not in one piece.  ``step`` is the number of the op that
    asked for it, ``alive`` are tensors that it uses or asks for, and those that were there.
    """

    scattered: bool = False
    step: int = -1
    alive: frozenset[str] = frozenset()


@dataclass
class Block:
    """A placed tensor.  ``address`` is a word address, or a pair address when ``wide``."""

    name: str
    address: int
    words: int
    wide: bool
    #: Occupied word addresses.
    where: npt.NDArray[np.int64] = field(repr=False)


class Allocator:
    """Places blocks of words; tracks the largest extent used."""

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._used = np.zeros(arch.token_words, bool)
        self._blocks: dict[str, Block] = {}
        self.peak_words = 0
        self._most = self._taken = 0

    def place(
        self, name: str, words: int, *, wide: bool = False, apart: Iterable[str] = (),
        in_bank: bool = False, last: bool = False,
    ) -> Block:
        """Reserve ``words`` words (pair words when ``wide``); all in one (pair of) bank if asked.

        They are the first ones that are free, or the ``last``.

        ``apart`` names blocks that are read at the same time as this one: their banks are
        avoided if the rest of the memory suffices (sharing costs stalls, never correctness).

        Raises
        ------
        PlacementError
            If the memory has no room; the message says how much is free and needed.
        """
        blocked = np.zeros(self._arch.banks, bool)
        for other in apart:
            if other in self._blocks:
                blocked[self._blocks[other].where // self._arch.bank_words] = True
        for avoid in (blocked, np.zeros_like(blocked)):
            found = self._find(words, wide, avoid, in_bank, last)
            if found is not None:
                block = Block(name, found, words, wide, self._cover(found, words, wide))
                self._used[block.where] = True
                self._blocks[name] = block
                self._taken += len(block.where)
                self._most = max(self._most, self._taken)
                self.peak_words = max(self.peak_words, self._most)
                return block
        k = self._arch.depth
        need = words * k * (2 if wide else 1)
        free = (len(self._used) - self._taken) * k
        pieces = ", but not in one piece" if need <= free else ""
        error = PlacementError(
            f"tensor {name!r} needs {need} bytes of token memory, and {free} of the "
            f"{self._arch.token_bytes} bytes of arch {self._arch.name!r} are free{pieces}: choose "
            f"an arch with more or larger banks, or a model with fewer tokens"
        )
        error.scattered, error.alive = bool(pieces), frozenset([name])
        raise error

    def rename(self, name: str, new: str) -> None:
        """Give a block another name."""
        self._blocks[new] = replace(self._blocks.pop(name), name=new)

    def release(self, name: str) -> None:
        """Free a block."""
        where = self._blocks.pop(name).where
        self._used[where] = False
        self._taken -= len(where)

    def most_words(self) -> int:
        """Words that were taken at the same time since the last call."""
        most, self._most = self._most, self._taken
        return most

    def _cover(self, address: int, words: int, wide: bool) -> npt.NDArray[np.int64]:
        span = np.arange(address, address + words, dtype=np.int64)
        if not wide:
            return span
        low = span + span // self._arch.bank_words * self._arch.bank_words
        return np.concatenate([low, low + self._arch.bank_words])

    def _find(
        self, words: int, wide: bool, avoid: npt.NDArray[np.bool_], in_bank: bool, last: bool
    ) -> int | None:
        size = self._arch.bank_words
        taken = self._used | np.repeat(avoid, size)
        if wide:
            banks = taken.reshape(-1, 2, size)
            taken = (banks[:, 0] | banks[:, 1]).reshape(-1)
        edges = np.flatnonzero(np.diff(taken, prepend=True, append=True)).tolist()
        free = list(zip(edges[::2], edges[1::2], strict=True))
        for start, stop in reversed(free) if last else free:
            found = stop - words if last else start
            if in_bank and found // size != (found + words - 1) // size:
                # at the border of a bank
                found = (stop - 1) // size * size - words if last else -(-start // size) * size
                if words > size:
                    continue
            if start <= found <= stop - words:
                return found
        return None
