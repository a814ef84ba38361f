"""Records what the engines do in an estimate, for traces and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vitrify.runtime.activity import ROW, Activity, Span, buckets, joined

from .tokens import Cycles


class Observer:
    """Told what the engines do, and keeps nothing.

    ``matmul`` and ``tile`` say what loader and array work on.
    """

    matmul = -1
    tile: tuple[int, int] | None = None

    def add(
        self, engine: str, state: str, begin: int, end: int, cause: str = "", *,
        matmul: int | None = None,
    ) -> None:
        """A span, of ``matmul`` and its tile unless another is named."""

    def words(self, state: str, entered: Sequence[int], late: int) -> None:
        """Words of the loader, ``late`` cycles before each of ``entered`` (ascending)."""

    def groups(self, matmul: int, c: int, chosen: Cycles, count: int) -> None:
        """Lane groups of c tile ``c``: ``count`` from each of ``chosen`` on."""

    def rows(
        self, free: int, begin: int, swapped: int, cause: str, cycles: Cycles,
        waits: Mapping[str, int],
    ) -> None:
        """A pass of the array.

        Parameters
        ----------
        free, begin, swapped : cycles from which the array, the instruction and the tile are there
        cause : what the tile waited for
        cycles : those of the rows
        waits : cycles without a row from ``swapped`` on, by cause
        """

    def burst(self, client: str, beats: Sequence[int]) -> None:
        """Beats of a burst, and whose they are."""


class Recorder(Observer):
    """Keeps what the engines do as spans."""

    def __init__(self) -> None:
        self._spans: dict[str, list[Span]] = {}
        self._beats: list[Sequence[int]] = []

    def add(
        self, engine: str, state: str, begin: int, end: int, cause: str = "", *,
        matmul: int | None = None,
    ) -> None:
        """Keep a span."""
        mine = (self.matmul, self.tile) if matmul is None else (matmul, None)
        self._add(Span(engine, state, begin, end, *mine, cause))

    def _add(self, span: Span) -> None:
        if span.end > span.begin:
            self._spans.setdefault(span.engine, []).append(span)

    def words(self, state: str, entered: Sequence[int], late: int) -> None:
        """Keep the stretches of the words."""
        for begin, end in _runs(np.asarray(entered) - late, 1):
            self.add("loader", state, begin, end)

    def groups(self, matmul: int, c: int, chosen: Cycles, count: int) -> None:
        """Keep the stretches of the lane groups."""
        for begin, end in _runs(chosen, count):
            self._add(Span("epilogue", "results", begin, end, matmul, (c, -1)))

    def rows(
        self, free: int, begin: int, swapped: int, cause: str, cycles: Cycles,
        waits: Mapping[str, int],
    ) -> None:
        """Keep rows and waits, of which every cycle is one."""
        self.add("array", "empty", free, begin, matmul=-1)
        self.add("array", "tile", begin, swapped, cause)
        # Where a pass waits for several, they are shown in the order of the blame.
        left = {name: count for name, count in waits.items() if count}
        at = swapped
        for start, end in _runs(cycles, 1):
            while at < start:
                name = next(iter(left))
                until = min(start, at + left[name])
                self.add("array", name, at, until)
                left[name] -= until - at
                if not left[name]:
                    del left[name]
                at = until
            self.add("array", ROW, start, end)
            at = end

    def burst(self, client: str, beats: Sequence[int]) -> None:
        """Keep the burst and its beats."""
        self._beats.append(beats)
        self.add("bus", client, beats[0], beats[-1] + 1, matmul=-1)

    def activity(self, cycles: int, beat_bytes: int, matmuls: Sequence[int]) -> Activity:
        """Everything, when the job has ended after ``cycles``.

        ``matmuls`` are the places in the program of those that were not left out.
        """
        last = self._spans.get("array", [])
        self.add("array", "empty", last[-1].end if last else 0, cycles, matmul=-1)
        spans = [
            span._replace(matmul=matmuls[span.matmul]) if span.matmul >= 0 else span
            for engine, found in self._spans.items() for span in _in_order(engine, found)
        ]
        beats = np.array([beat for burst in self._beats for beat in burst], np.int64)
        return Activity("estimate", cycles, spans, buckets(beats, beat_bytes, cycles))


def _in_order(engine: str, spans: list[Span]) -> list[Span]:
    """By their begin; instructions stay apart, whatever they are."""
    spans = sorted(spans, key=lambda span: span.begin)
    return spans if engine == "instructions" else joined(spans)


def _runs(starts: Cycles, length: int) -> list[tuple[int, int]]:
    """``length`` cycles from each of ``starts``: begins and ends of the stretches they make."""
    breaks = np.flatnonzero(np.diff(starts) != length) + 1
    firsts = starts[np.concatenate([[0], breaks])]
    lasts = starts[np.concatenate([breaks - 1, [len(starts) - 1]])] + length
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
