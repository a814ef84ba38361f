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

from .bands import fewest_words


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

    Members
    -------
    depth : of the dot products: words of all taps
    step, group : words from what a group of c tiles reads to what the next one does
    """

    def __init__(self, arch: ArchConfig, window: Window, x: Spread, out: Spread) -> None:
        self._arch, self._window = arch, window
        self._inputs = np.flatnonzero(x.scatter(np.ones(x.channels)))
        self._outputs = np.flatnonzero(out.scatter(np.ones(out.channels)))
        self._columns = out.physical
        self._words, self.step, self.group = x.words, 0, 1
        if window.groups > 1:
            self._words, self.step, self.group = self._diagonal(x.words)
        last = arch.depth if self.step else x.physical - (x.words - 1) * arch.depth
        self.depth = (window.taps * self._words - 1) * arch.depth + last

    def _channels(self) -> npt.NDArray[np.int64]:
        """Physical channels of a pixel that each output reads: ``[out, channels of a group]``."""
        own = self._inputs.reshape(self._window.groups, -1)
        return np.repeat(own, len(self._outputs) // self._window.groups, axis=0)

    def _diagonal(self, words: int) -> tuple[int, int, int]:
        """The fewest words that hold what every c tile reads, if they move on with the tiles."""
        read, tile = self._channels() // self._arch.depth, self._outputs // self._arch.width
        tiles = int(tile[-1]) + 1
        low, high = np.full(tiles, words - 1), np.zeros(tiles, np.int64)
        np.minimum.at(low, tile, read[:, 0])
        np.maximum.at(high, tile, read[:, -1])
        return fewest_words(low, high, words)

    def matrix(self, weight: Int8) -> Int8:
        """``[out, taps * channels of a group]`` as ``[columns, depth]`` of the core."""
        taps, depth, width = self._window.taps, self._arch.depth, self._arch.width
        size = self._words * depth
        full = np.zeros((self._columns, taps, size), np.int8)
        first = self._outputs // width // self.group * self.step * depth
        where = self._channels() - first[:, None]
        each = weight.reshape(len(weight), taps, -1)
        for tap in range(taps):
            full[self._outputs[:, None], tap, where] = each[:, tap]
        return full.reshape(self._columns, -1)[:, : self.depth]
