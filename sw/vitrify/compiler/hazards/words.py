"""The last writers and readers of every word of a memory, and who must know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .order import MATMUL, Clock, Partly

Index = npt.NDArray[np.int64]

#: Engines, by the names of a clock's components; stores are known to nobody.
ENGINES = (*Clock._fields, "stores")
#: In place of an engine: nobody has written a word.
NEVER = "nobody"


@dataclass(frozen=True)
class Access:
    """By an engine, and the progress that says that it is done (one for each word, or for all)."""

    engine: str
    progress: Any
    #: Whether it surely takes place.
    certain: bool = True


@dataclass(frozen=True)
class Conflict:
    """Words whose access by ``engine`` may still be to come, up to its ``progress``."""

    memory: str
    words: tuple[int, int]
    engine: str
    progress: int
    #: They are read; else overwritten.
    reads: bool


class Memory:
    """Progress of every engine behind its last write, and its last read, of each word.

    Engines are in order, so that the last access stands for those before it.  A write that surely
    takes place takes over from everything before: whoever waits for it has waited for that.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._written = {engine: np.zeros(size, np.int64) for engine in ENGINES}
        self._read = {engine: np.zeros(size, np.int64) for engine in ENGINES}
        #: The epilogue's write before the last one, if that may not take place.
        self._older = np.zeros(size, np.int64)
        self._ever = np.zeros(size, bool)

    def read(
        self, words: Index, access: Access, known: Clock | Mapping[str, Any], *,
        fresh: bool = False,
    ) -> Iterator[Conflict]:
        """Check a read of ``words`` by somebody who knows ``known``, and remember it.

        ``fresh``: words that nobody has written are not really read.
        """
        flat, done = self._flat(words, access.progress)
        if not len(flat):
            return
        yield from self._conflicts(words, self._written, access.engine, known, True)
        never = flat[~self._ever[flat]]
        if len(never) and not fresh:
            yield Conflict(self.name, (int(never.min()), int(never.max())), NEVER, 0, True)
        np.maximum.at(self._read[access.engine], flat, done)

    def write(
        self, words: Index, access: Access, known: Clock | Mapping[str, Any]
    ) -> Iterator[Conflict]:
        """Check a write, and remember it."""
        yield from self._conflicts(words, self._written, access.engine, known, False)
        yield from self._conflicts(words, self._read, access.engine, known, False)
        flat, done = self._flat(words, access.progress)
        if access.certain:
            for table in (*self._written.values(), *self._read.values()):
                table[flat] = 0
            self._older[flat] = 0
        elif access.engine == "epilogue":
            # The write before this one may still be the last; of three, all must have finished.
            before, oldest = self._written["epilogue"][flat], self._older[flat]
            ended = -(-before // MATMUL) * MATMUL
            self._older[flat] = np.where(oldest > 0, ended, before)
        np.maximum.at(self._written[access.engine], flat, done)
        self._ever[flat] = True

    def _flat(self, words: Index, values: Any) -> tuple[Index, Index]:
        """Words that exist, with a value each."""
        flat = np.asarray(words).reshape(-1)
        each = np.broadcast_to(np.asarray(values), np.shape(words)).reshape(-1)
        inside = (flat >= 0) & (flat < self.size)
        return flat[inside], each[inside]

    def _conflicts(
        self, words: Index, done: Mapping[str, Index], own: str,
        known: Clock | Mapping[str, Any], reads: bool,
    ) -> Iterator[Conflict]:
        progress = known._asdict() if isinstance(known, Clock) else known
        tables = [*done.items()]
        if done is self._written:
            tables.append(("epilogue", self._older))
        for engine, table in tables:
            if engine == own:
                continue
            flat, knows = self._flat(words, progress.get(engine, 0))
            needs = table[flat]
            late = needs > knows
            if engine == "epilogue" and isinstance(partly := progress.get("partly"), Partly):
                which = needs // MATMUL
                levels = self._flat(words, partly.levels)[1]
                late &= ~(
                    (partly.first <= which) & (which <= partly.last) & (needs % MATMUL > 0)
                    & (needs % MATMUL <= levels)
                )
            if late.any():
                which = flat[late]
                yield Conflict(self.name, (int(which.min()), int(which.max())), engine,
                               int(needs[late].max()), reads)
