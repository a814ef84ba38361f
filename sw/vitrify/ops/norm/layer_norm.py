"""Variance 1 over the channels of a row, or mean square 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.quant.normaliser import Normaliser
from vitrify.quant.tensors import Statistics

_EPSILON_MAX = (1 << 16) - 1


def _statistics(epsilon: float, step: float, dim: int, centred: bool) -> Statistics:
    unit = step * 2.0**-formats.MEAN_FRAC
    mantissa, shift = formats.inv_dim(dim)
    units = round(epsilon / unit**2)
    assert units <= _EPSILON_MAX, f"an epsilon of {epsilon} in steps of {step}"
    return Statistics(mantissa, shift, units, centred)


def _finest_step(epsilon: float) -> float:
    return float(np.sqrt(epsilon / _EPSILON_MAX)) * 2.0**formats.MEAN_FRAC


@dataclass(frozen=True)
class LayerNorm(Normaliser):
    """``(x - mean) / sqrt(variance + epsilon)``."""

    epsilon: float

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.epsilon)

    @property
    def finest_step(self) -> float:
        return _finest_step(self.epsilon)

    def statistics(self, step: float, dim: int) -> Statistics:
        return _statistics(self.epsilon, step, dim, centred=True)


@dataclass(frozen=True)
class RMSNorm(Normaliser):
    """``x / sqrt(mean square + epsilon)``."""

    epsilon: float

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return rows / np.sqrt(np.mean(rows * rows, axis=-1, keepdims=True) + self.epsilon)

    @property
    def finest_step(self) -> float:
        return _finest_step(self.epsilon)

    def statistics(self, step: float, dim: int) -> Statistics:
        return _statistics(self.epsilon, step, dim, centred=False)
