"""Mean 0 and variance 1 over the channels of a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.quant.normaliser import Normaliser
from vitrify.quant.tensors import Statistics

_EPSILON_MAX = (1 << 16) - 1


@dataclass(frozen=True)
class LayerNorm(Normaliser):
    """``(x - mean) / sqrt(variance + epsilon)``."""

    epsilon: float

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.epsilon)

    def statistics(self, step: float, dim: int) -> Statistics:
        unit = step * 2.0**-formats.MEAN_FRAC
        mantissa, shift = formats.inv_dim(dim)
        return Statistics(mantissa, shift, min(_EPSILON_MAX, round(self.epsilon / unit**2)))
