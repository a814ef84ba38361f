"""What the engines of a core do when: spans of cycles, from the estimator or from a simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Tracks, in the order of the pipeline, with what their spans are.
ENGINES = {
    "instructions": "an instruction between its decoding and its engine's queue",
    "loader": "words of stationary tiles, parameters, gains and tables; waits by their cause",
    "array": "rows that the fetch issues to the matrix unit; waits by their cause",
    "epilogue": "lane groups of results",
    "router": "a ROUTE, from its logits to the queues of the experts",
    "loads": "words that the mover loads from DRAM",
    "stores": "words that the mover stores to DRAM",
    "bus": "reads of DRAM, by client",
}
#: Every cycle of the array is one of these: a row, or a wait of the core's counters.
ROW = "row"
ARRAY_STATES = (ROW, "tile", "dependency", "drain", "bank", "empty")
#: Cycles of an entry of :attr:`Activity.traffic`.
BUCKET = 64


class Span(NamedTuple):
    """An engine in one state from cycle ``begin`` up to, but without, ``end``.

    ``matmul`` is the place in ``program.layers``, or -1; ``tile`` names the c and k tile, where it
    is known; ``cause`` says what a wait waited for, where the state does not.
    """

    engine: str
    state: str
    begin: int
    end: int
    matmul: int = -1
    tile: tuple[int, int] | None = None
    cause: str = ""

    @property
    def cycles(self) -> int:
        """How long it lasts."""
        return self.end - self.begin


@dataclass(frozen=True)
class Activity:
    """A run: spans in order within an engine, and bytes read from DRAM.

    ``cycles`` last from the start of the first job to the end of the last.
    """

    source: str
    cycles: int
    spans: list[Span] = field(repr=False)
    #: Bytes read in every :data:`BUCKET` cycles.
    traffic: npt.NDArray[np.int64] = field(repr=False)

    def of(self, engine: str) -> list[Span]:
        """Spans of one engine."""
        return [span for span in self.spans if span.engine == engine]

    def totals(self, engine: str) -> dict[str, int]:
        """Cycles of every state of an engine."""
        found: dict[str, int] = {}
        for span in self.of(engine):
            found[span.state] = found.get(span.state, 0) + span.cycles
        return found


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans of one engine, those that continue their predecessor made one with it."""
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        if last is not None and last.end == span.begin and _same(last, span):
            found[-1] = last._replace(end=span.end)
        else:
            found.append(span)
    return found


def _same(one: Span, other: Span) -> bool:
    return one.state == other.state and one.matmul == other.matmul and (
        one.tile == other.tile and one.cause == other.cause
    )


def buckets(cycles: npt.NDArray[np.int64], size: int, total: int) -> npt.NDArray[np.int64]:
    """Bytes of every :data:`BUCKET` of ``total`` cycles, when ``size`` are moved at each cycle."""
    count = -(-max(total, int(cycles.max(initial=0)) + 1) // BUCKET)
    return size * np.bincount(cycles // BUCKET, minlength=count)
