"""Matrices of which every c tile reads few words of a row: what streams moves on with the tiles.

Copies into other formats, folded rows, rotations and depthwise convolutions are such matrices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.codegen.pack import pad_to
from vitrify.codegen.placement import Spread
from vitrify.quant.tensors import Int8

Index = npt.NDArray[np.integer]


def fewest_words(low: Index, high: Index, words: int) -> tuple[int, int, int]:
    """The fewest words that every c tile has to read of a row if they move on with the tiles.

    Parameters
    ----------
    low, high : first and last word that each c tile needs
    words : of a row

    Returns
    -------
    words of each c tile, and ``step``, ``group``: by how many they move on behind how many c tiles
    """
    best, tiles = (words, 0, 1), len(low)
    if int((high - low).max()) + 1 == words:
        return best
    for group in range(1, tiles + 1):
        number = np.arange(tiles) // group
        for step in range(1, words // max(1, number[-1]) + 1):
            count = int((high - number * step).max()) + 1
            fits = (low >= number * step).all() and number[-1] * step + count <= words
            if fits and count < best[0]:
                best = count, step, group
    return best


class Band:
    """Rows as they are, or ``fold`` of them side by side, and weights ``[out, fold * channels]``.

    Members
    -------
    depth : of the dot products
    step, group : words from what a group of c tiles reads to what the next one does
    """

    def __init__(
        self, arch: ArchConfig, weight: Int8, x: Spread, out: Spread, fold: int = 1
    ) -> None:
        self._arch, self._x, self._out, self._fold = arch, x, out, fold
        words = fold * x.words
        self.depth = self._whole = (fold - 1) * x.words * arch.depth + x.physical
        self.step, self.group = 0, 1
        used = self._used(np.any(weight.reshape(-1, *weight.shape[-2:]), axis=0).astype(np.int8))
        # A tile of zeros may read anything.
        low = np.where(used.any(axis=1), used.argmax(axis=1), words - 1)
        high = words - 1 - np.where(used.any(axis=1), used[:, ::-1].argmax(axis=1), words - 1)
        count, self.step, self.group = fewest_words(low, high, words)
        if self.step:
            self.depth = count * arch.depth

    def matrix(self, weight: Int8) -> Int8:
        """As ``[columns, depth]`` of the core."""
        full = self._physical(weight)
        if not self.step:
            return full
        full = pad_to(full, 1, self._arch.depth)
        tile = np.arange(len(full)) // self._arch.width
        first = tile // self.group * self.step * self._arch.depth
        return np.take_along_axis(full, first[:, None] + np.arange(self.depth), axis=1)

    def _physical(self, weight: Int8) -> Int8:
        rows = weight.reshape(len(weight), self._fold, -1)
        spread = self._x.scatter(rows, axis=2)
        if self._fold > 1:
            spread = pad_to(spread, 2, self._arch.depth)
        return self._out.scatter(spread.reshape(len(weight), -1)[:, : self._whole])

    def _used(self, weight: Int8) -> npt.NDArray[np.bool_]:
        """Which words each c tile needs: ``[c tiles, words of a row]``."""
        arch = self._arch
        padded = pad_to(pad_to(self._physical(weight), 0, arch.width), 1, arch.depth)
        tiles = padded.reshape(-1, arch.width, padded.shape[1] // arch.depth, arch.depth)
        return np.any(tiles != 0, axis=(1, 3))
