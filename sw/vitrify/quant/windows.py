"""Windows of a map: what a convolution reads of a tensor whose rows are the pixels of a map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.access import Taps

from .tensors import Float


@dataclass(frozen=True)
class Window:
    """One row for each place of a ``kernel`` that slides over a ``map``, zeros around it.

    ``map``, ``kernel``: height and width; ``pads``: top, left, bottom, right.  Channels fall into
    ``groups``, each read by as many outputs.  Weights are ``[out, taps * channels of a group]``.
    A tensor may hold several ``maps``, one behind the other.
    """

    map: tuple[int, int]
    kernel: tuple[int, int]
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    maps: int = 1

    @property
    def taps(self) -> int:
        """Pixels of a window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map of results."""
        top, left, bottom, right = self.pads
        return (
            (self.map[0] + top + bottom - self.kernel[0]) // self.stride + 1,
            (self.map[1] + left + right - self.kernel[1]) // self.stride + 1,
        )

    @property
    def lines(self) -> bool:
        """Whether every window is a line of the map: its pixels side by side."""
        line = (1, self.map[1])
        return self.kernel == line and self.stride == 1 and not any(self.pads) and self.groups == 1

    @property
    def pixels(self) -> int:
        """Rows of a map."""
        return self.map[0] * self.map[1]

    @property
    def places(self) -> int:
        """Rows of the result of a map."""
        return self.size[0] * self.size[1]

    @property
    def count(self) -> int:
        """Rows of the result."""
        return self.maps * self.places

    @property
    def reading(self) -> int:
        """Rows of the result that read a pixel: the others are between parts of a tensor."""
        seen = [
            sum(-self.kernel[i] < at * self.stride - self.pads[i] < self.map[i]
                for at in range(self.size[i]))
            for i in (0, 1)
        ]
        return self.maps * seen[0] * seen[1]

    def reads(self, y: int, end: int) -> range:
        """Lines of the map that the results from line ``y`` up to ``end`` read."""
        top, last = y * self.stride - self.pads[0], (end - 1) * self.stride - self.pads[0]
        return range(max(0, top), min(self.map[0], last + self.kernel[0]))

    def rows_read(self, lines: range) -> range:
        """Rows of the map that some lines of results read."""
        read = self.reads(lines.start, lines.stop)
        return range(read.start * self.map[1], read.stop * self.map[1])

    def of_lines(self, lines: range, there: range) -> Window | None:
        """The window that makes some lines of results, from a map of which rows are ``there``.

        Lines of that which it does not read are pads below zero.  ``None``: rows are no lines.
        """
        width, (_, left, _, right) = self.map[1], self.pads
        if there.start % width or there.stop % width:
            return None
        high = len(there) // width
        top = self.pads[0] + there.start // width - lines.start * self.stride
        bottom = (len(lines) - 1) * self.stride + self.kernel[0] - high - top
        return replace(self, map=(high, width), pads=(top, left, bottom, right))

    def part(self, y: int, x: int, width: int, lines: range | None = None) -> Taps:
        """Taps of the results from ``(y, x)`` on, ``width`` of them beside each other.

        With ``lines`` the tensor has these lines of the map only.
        """
        lines = range(self.map[0]) if lines is None else lines
        return Taps(
            *self.kernel, self.stride, len(lines), self.map[1], width,
            y * self.stride - self.pads[0] - lines.start, x * self.stride - self.pads[1],
        )

    def each(self, rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """For every tap what it reads of ``[N, pixels, D]``: ``[N, count, D]``."""
        index = self.part(0, 0, self.size[1]).pixels(self.places)
        maps = rows.reshape(-1, self.pixels, rows.shape[2])
        read = (
            np.where(tap[:, None] >= 0, maps[:, np.maximum(tap, 0)], 0).astype(rows.dtype)
            for tap in index.T
        )
        return [tap.reshape(len(rows), self.count, -1) for tap in read]

    def of(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """All taps of ``[N, pixels, D]`` beside each other: ``[N, count, taps * D]``."""
        return np.concatenate(self.each(rows), axis=2)

    def inputs(self, values: npt.NDArray[Any], out: int) -> npt.NDArray[Any]:
        """``values [D]`` of channels as those of each weight ``[out, taps * D / groups]``."""
        own = np.repeat(values.reshape(self.groups, -1), out // self.groups, axis=0)
        return np.tile(own, (1, self.taps))

    def pixelwise(self, weight: Float) -> Float:
        """Weights by the channel of a pixel: every tap as a row, ``[out / groups * taps, D]``."""
        out, own = len(weight), weight.shape[1] // self.taps
        each = weight.reshape(self.groups, out // self.groups, self.taps, own)
        return each.transpose(1, 2, 0, 3).reshape(-1, self.groups * own)
