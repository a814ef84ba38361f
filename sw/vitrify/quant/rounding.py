"""Rounding of weights against the inputs they will see.

Rounding every weight to the nearest integer ignores that inputs are correlated.  Rounding column by
column, and letting each column make up for the errors of those before it (GPTQ, Frantar et al.
2022, in the LDL form of QuIP, Chee et al. 2023), leaves the error in directions that the inputs
hardly use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig

Float = npt.NDArray[np.float64]

#: Columns whose mutual corrections are made one by one; earlier ones follow block by block.
_BLOCK = 64


@dataclass(frozen=True)
class Grid:
    """Integers that weights may be."""

    low: int
    high: int
    #: Ranges tried for each row of weights, relative to its largest magnitude.
    clips: tuple[float, ...]
    #: Largest integer of a grid on which rounding weights one by one errs as much as here.
    most: float
    #: How often every integer is chosen again, with all others as they are.
    sweeps: int = 0
    #: Added to the diagonal of the second moments, relative to its mean; GPTQ adds as much.
    damping: float = 0.01

    def for_layer(self, channels: int, groups: int, arch: ArchConfig) -> Grid:
        """For a layer of so many results, used in ``groups`` equal parts."""
        del channels, groups, arch
        return self

    def holds(self, weight: npt.NDArray[np.integer[Any]]) -> bool:
        """Whether it has every weight."""
        return bool(self.low <= weight.min() and weight.max() <= self.high)

    def nearest(self, values: Float) -> Float:
        """The closest of the integers."""
        whole = np.rint(values)
        # np.clip takes twice as long for a column of weights
        np.maximum(whole, self.low, out=whole)
        return np.minimum(whole, self.high, out=whole)


#: By the bits of a weight.
GRIDS = {
    formats.INT8.bits: Grid(-formats.INT8.max, formats.INT8.max, tuple(np.linspace(1.0, 0.6, 17)),
                            most=127),
    # most: of 6, 16 and 127 the one with the least divergence of ViT-tiny, on the photographs that
    # docs/numerics.md reports it for; that figure is flattered.
    # damping: of 0.01, 0.1, 0.3 and 1, 0.1 and 0.3 had the least error of four of its layers for
    # calibration images held back.  Rows of an image are alike: a few dozen images show less of the
    # inputs than their rows seem to, and what rounding shifts to where they show nothing is errors.
    formats.INT4.bits: Grid(formats.INT4.min, formats.INT4.max, tuple(np.linspace(1.0, 0.4, 13)),
                            most=16, sweeps=4, damping=0.2),
}


def nearest(weight: Float, step: Float, grid: Grid) -> Float:
    """``weight / step`` rounded to the nearest integer of ``grid``: ``[out, in]``."""
    return grid.nearest(weight / step[:, None])


class Moments:
    """What weights need to know of the integer inputs ``x`` that they multiply.

    Parameters
    ----------
    x : ``[S, in]``, samples, zero point taken off

    Members
    -------
    mean, energy : ``[in]``, mean and mean square of each input
    """

    def __init__(self, x: npt.NDArray[np.number]) -> None:
        self._x = x = np.asarray(x, np.float32)
        self.mean = x.mean(axis=0, dtype=np.float64)
        self.energy = np.square(x).mean(axis=0, dtype=np.float64)
        self._order = np.argsort(-self.energy, kind="stable")
        #: Feedback by damping.
        self._known: dict[float, Float] = {}

    @cached_property
    def _second(self) -> Float:
        """Mean products of inputs, ``[in, in]``."""
        return (self._x.T @ self._x).astype(np.float64) / len(self._x)

    def _damped(self, damping: float) -> Float:
        """Second moments, the better for the inputs that the samples did not show."""
        damped = self._second.copy()
        damped[np.diag_indices_from(damped)] += max(damping * float(self.energy.mean()), 1e-9)
        return damped

    def _feedback(self, damping: float) -> Float:
        """What each column, in order, takes over of the errors of those before it.

        Most of the time of a quantisation, and not everybody rounds by it.
        """
        if damping not in self._known:
            order = self._order[::-1]
            # second = U D U^T with U unit upper triangular: a Cholesky factor, backwards.
            factor = np.linalg.cholesky(self._damped(damping)[np.ix_(order, order)])
            factor /= np.diag(factor).copy()
            self._known[damping] = np.asarray(factor[::-1, ::-1], np.float64)
        return self._known[damping]

    def peak(self, weight: Float) -> Float:
        """Largest magnitude of each column of ``x @ weight.T``: ``[out]``."""
        products = self._x @ weight.T.astype(np.float32)
        return np.abs(products).max(axis=0).astype(np.float64)

    def cost(self, error: Float) -> Float:
        """Mean square of what weights ``error [out, in]`` make of ``x``: ``[out]``."""
        return ((error @ self._second) * error).sum(axis=1)

    def round(self, weight: Float, step: Float, grid: Grid) -> Float:
        """``weight / step`` to integers of ``grid``, with the least error for ``x``.

        Parameters
        ----------
        weight : ``[out, in]``
        step : ``[out]``
        """
        if (np.count_nonzero(weight, axis=1) <= 1).all():
            # Copies: there are no others to make up for a weight's error.
            return nearest(weight, step, grid)
        exact = weight[:, self._order] / step[:, None]
        result = np.empty_like(exact)
        error = np.empty_like(exact)
        count, feedback = exact.shape[1], self._feedback(grid.damping)
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            earlier = error[:, :start] @ feedback[:start, start:stop]
            for i in range(start, stop):
                wanted = exact[:, i] + earlier[:, i - start]
                wanted += error[:, start:i] @ feedback[start:i, i]
                result[:, i] = grid.nearest(wanted)
                error[:, i] = exact[:, i] - result[:, i]
        restored = np.empty_like(result)
        restored[:, self._order] = result
        self._improve(restored, weight / step[:, None], grid)
        return restored

    def _improve(self, result: Float, exact: Float, grid: Grid) -> None:
        """Choose integers again, one input after the other, while that lowers the cost."""
        if not grid.sweeps:
            return
        second = self._damped(grid.damping)
        pull = (exact - result) @ second
        for _ in range(grid.sweeps):
            before = result.copy()
            for i in self._order:
                better = grid.nearest(result[:, i] + pull[:, i] / second[i, i])
                change = better - result[:, i]
                moved = np.flatnonzero(change)
                result[moved, i] = better[moved]
                pull[moved] -= change[moved, None] * second[i]
            if np.array_equal(before, result):
                break


class Separate:
    """Moments of inputs that each row of the weights has for itself, rounded one by one.

    Parameters
    ----------
    mean, energy, peaks : ``[out, in]``, mean, mean square and largest magnitude of each input
    """

    def __init__(self, mean: Float, energy: Float, peaks: Float) -> None:
        self.mean, self.energy, self._peaks = mean, energy, peaks

    def peak(self, weight: Float) -> Float:
        """Largest magnitude that each row of ``weight`` can make: ``[out]``."""
        return (np.abs(weight) * self._peaks).sum(axis=1)

    def cost(self, error: Float) -> Float:
        """Mean square of what weights ``error [out, in]`` make of the inputs: ``[out]``."""
        return weigh(error * error, self.energy)

    def round(self, weight: Float, step: Float, grid: Grid) -> Float:
        """``weight / step`` to integers of ``grid``."""
        return nearest(weight, step, grid)


def weigh(values: Float, by: Float) -> Float:
    """Sums of ``values [out, in]`` times those of the inputs ``[in]``, or of each ``[out, in]``."""
    return values @ by if by.ndim == 1 else (values * by).sum(axis=1)
