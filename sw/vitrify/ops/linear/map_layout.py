"""How a convolution is laid out on the core: blocks of its rows, words that a c tile reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vitrify.arch.access import Taps
from vitrify.arch.config import ArchConfig
from vitrify.codegen.placement import Spread
from vitrify.quant.tensors import Int8
from vitrify.quant.windows import Window

from .bands import Part, parts


def blocks(window: Window, most: int) -> Iterator[tuple[int, int, Taps]]:
    """``(first row, rows, taps)`` of blocks of at most so many rows: whole lines where they fit."""
    height, width = window.size
    if width > most:
        for y in range(height):
            for x in range(0, width, most):
                rows = min(most, width - x)
                yield y * width + x, rows, window.part(y, x, rows)
        return
    lines = -(-height // -(-height // (most // width)))
    for y in range(0, height, lines):
        yield y * width, min(lines, height - y) * width, window.part(y, 0, width)


class Layout:
    """Words of a pixel that each c tile reads, and weights in the order of the taps.

    ``split``: in several MATMULs if that saves more k tiles of a row.
    """

    def __init__(
        self, arch: ArchConfig, window: Window, x: Spread, out: Spread, *, split: float = np.inf
    ) -> None:
        self._arch, self._window, self._x = arch, window, x
        self._inputs = np.flatnonzero(x.scatter(np.ones(x.channels)))
        self._outputs = np.flatnonzero(out.scatter(np.ones(out.channels)))
        self._columns = out.physical
        if window.groups == 1:
            one = Part(0, -(-out.physical // arch.width), 0, x.words, 0, 1)
            self.parts = list(one.pieces(max(1, arch.depth // arch.width)))
        else:
            self.parts = parts(
                arch, *self._reach(x.words), x.words, split=split / window.taps
            )

    def depth(self, part: Part) -> int:
        """Of the dot products: words of all taps."""
        depth, x = self._arch.depth, self._x
        whole = part.words == x.words
        last = x.physical - (x.words - 1) * depth if whole else depth
        return (self._window.taps * part.words - 1) * depth + last

    def matrix(self, weight: Int8, part: Part) -> Int8:
        """``[out, taps * channels of a group]`` as ``[columns, depth]`` of the core."""
        taps, depth, width = self._window.taps, self._arch.depth, self._arch.width
        columns = part.columns(width, self._columns)
        mine = (self._outputs >= columns.start) & (self._outputs < columns.stop)
        outputs, channels = self._outputs[mine], self._channels()[mine]
        full = np.zeros((columns.stop - columns.start, taps, part.words * depth), np.int8)
        where = channels - part.start(outputs // width)[:, None] * depth
        each = weight.reshape(len(weight), taps, -1)[mine]
        for tap in range(taps):
            full[outputs[:, None] - columns.start, tap, where] = each[:, tap]
        return full.reshape(len(full), -1)[:, : self.depth(part)]

    def _channels(self) -> npt.NDArray[np.int64]:
        """Physical channels of a pixel that each output reads: ``[out, channels of a group]``."""
        own = self._inputs.reshape(self._window.groups, -1)
        return np.repeat(own, len(self._outputs) // self._window.groups, axis=0)

    def _reach(self, words: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last word that each c tile reads."""
        read, tile = self._channels() // self._arch.depth, self._outputs // self._arch.width
        tiles = int(tile[-1]) + 1
        low, high = np.full(tiles, words - 1), np.zeros(tiles, np.int64)
        np.minimum.at(low, tile, read[:, 0])
        np.maximum.at(high, tile, read[:, -1])
        return low, high
