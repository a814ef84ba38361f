"""Maxima of windows in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.quant.evaluation import Evaluation
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Requant
from vitrify.quant.windows import Window


@dataclass(frozen=True, kw_only=True)
class QLargest(QOp):
    """The largest byte of each window.

    Each tap passes the matrix unit with ``weight`` on the diagonal, and ``requant`` takes that off
    again.
    """

    x: str
    window: Window
    weight: int
    requant: Requant

    def sources(self) -> tuple[str, ...]:
        return (self.x,)

    def pixels(self) -> npt.NDArray[np.int64]:
        """Row of every tap in a map ``[taps, places]``; one outside is the nearest inside."""
        window = self.window
        (high, wide), width = window.map, window.size[1]
        tap_y, tap_x = np.divmod(np.arange(window.taps), window.kernel[1])
        y, x = np.divmod(np.arange(window.places), width)
        at_y = np.clip(y * window.stride + tap_y[:, None] - window.pads[0], 0, high - 1)
        at_x = np.clip(x * window.stride + tap_x[:, None] - window.pads[1], 0, wide - 1)
        return at_y * wide + at_x

    def evaluate(self, run: Evaluation) -> None:
        x, largest = run.read(self.x), None
        images, x = len(x), x.reshape(-1, self.window.pixels, x.shape[2])
        for index in self.pixels():
            tap = x[:, index].astype(np.int64)
            value = run.scale((self.weight * tap).reshape(-1, tap.shape[2]), self.requant)
            made = run.store(self.out, value).reshape(tap.shape)
            largest = made if largest is None else np.maximum(largest, made)
        assert largest is not None
        run.write(self.out, largest.reshape(images, self.window.count, -1))
