"""Matrices of which every c tile reads few words of a row: what streams moves on with the tiles.

Copies into other formats, folded rows, rotations and depthwise convolutions are such matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import FORMATS, Opcode
from vitrify.codegen.pack import pad_to
from vitrify.codegen.placement import Spread
from vitrify.quant.tensors import Int8

Index = npt.NDArray[np.integer]
#: C tiles of a MATMUL.
MOST_TILES = FORMATS[Opcode.MATMUL].field("c_tiles").max


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


@dataclass(frozen=True)
class Part:
    """C tiles that one MATMUL makes, ``tiles`` of them from ``first`` on.

    Each reads ``words`` of a row or pixel, the first one from ``word`` on; ``step`` and ``group``
    as :func:`fewest_words` gives them.
    """

    first: int
    tiles: int
    word: int
    words: int
    step: int
    group: int

    def columns(self, width: int, every: int) -> slice:
        """Its columns, of C = ``width`` in a tile and ``every`` column in all."""
        return slice(self.first * width, min((self.first + self.tiles) * width, every))

    def pieces(self, each: int) -> Iterator[Part]:
        """As many MATMULs as it takes; a result begins with a word of ``each`` c tiles."""
        unit = math.lcm(self.group, each)
        most = max(1, MOST_TILES // unit) * unit
        for first in range(0, self.tiles, most):
            yield replace(
                self, first=self.first + first, tiles=min(most, self.tiles - first),
                word=self.word + first // self.group * self.step,
            )

    def start(self, tile: Index) -> Index:
        """First word that c tiles read, by their numbers."""
        return self.word + (tile - self.first) // self.group * self.step


def parts(
    arch: ArchConfig, low: Index, high: Index, words: int, *, split: float
) -> list[Part]:
    """All c tiles at once, or the last one by itself if that saves more than ``split`` words.

    Steps are even, and so a last tile with fewer channels would make all others read too much.
    Where a word has several c tiles, those of the last word are by themselves: a result begins
    with a word.
    """

    def part(first: int, end: int) -> Part:
        word = int(min(low[first:end].min(), high[first:end].max()))
        found = fewest_words(low[first:end] - word, high[first:end] - word, words - word)
        return Part(first, end - first, word, *found)

    def cost(some: list[Part]) -> int:
        return sum(one.tiles * one.words for one in some)

    count, each = len(low), max(1, arch.depth // arch.width)
    whole, last = [part(0, count)], (count - 1) // each * each
    if last:
        apart = [part(0, last), part(last, count)]
        if cost(apart) + split < cost(whole):
            whole = apart
    return [piece for part in whole for piece in part.pieces(each)]


class Band:
    """Rows as they are, or ``fold`` of them side by side, and weights ``[out, fold * channels]``.

    ``narrow``: c tiles read no more than they need, which takes a core with patterns; ``split``: in
    several MATMULs if that saves more words of a row.  ``only``: no other c tiles are made.
    """

    def __init__(
        self, arch: ArchConfig, weight: Int8, x: Spread, out: Spread, fold: int = 1, *,
        narrow: bool = True, split: float = np.inf, only: range | None = None,
    ) -> None:
        self._arch, self._x, self._out, self._fold = arch, x, out, fold
        self._words = words = fold * x.words
        self._whole = (fold - 1) * x.words * arch.depth + x.physical
        tiles, each = -(-out.physical // arch.width), max(1, arch.depth // arch.width)
        made = only or range(tiles)
        self.parts = list(Part(made.start, len(made), 0, words, 0, 1).pieces(each))
        if narrow and arch.patterns:
            some = np.any(weight.reshape(-1, *weight.shape[-2:]), axis=0)
            used = self._used(some.astype(np.int8))
            # A tile of zeros may read anything.
            low = np.where(used.any(axis=1), used.argmax(axis=1), words - 1)
            high = words - 1 - np.where(used.any(axis=1), used[:, ::-1].argmax(axis=1), words - 1)
            self.parts = parts(arch, low, high, words, split=split)

    def depth(self, part: Part) -> int:
        """Of the dot products."""
        return self._whole if part.words == self._words else part.words * self._arch.depth

    def matrix(self, weight: Int8, part: Part) -> Int8:
        """A part as ``[columns, depth]`` of the core."""
        width, full = self._arch.width, self._physical(weight)
        full = full[part.columns(width, len(full))]
        if part.words == self._words:
            return full
        full = pad_to(full, 1, self._arch.depth)
        first = part.start(part.first + np.arange(len(full)) // width) * self._arch.depth
        return np.take_along_axis(full, first[:, None] + np.arange(self.depth(part)), axis=1)

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
