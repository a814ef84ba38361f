"""Variance 1 over the channels of a row, or mean square 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.isa import FORMATS, Opcode
from vitrify.quant.normaliser import Normaliser
from vitrify.quant.tensors import Statistics

_EPSILON_MAX = FORMATS[Opcode.MATMUL].field("epsilon").max


@dataclass(frozen=True)
class _OfRows(Normaliser):
    """Rows over the root of their mean square plus ``epsilon``, their mean taken off or not."""

    epsilon: float
    centred: ClassVar[bool]

    @property
    def finest_step(self) -> float:
        return float(np.sqrt(self.epsilon / _EPSILON_MAX)) * 2.0**formats.MEAN_FRAC

    def statistics(self, step: float, dim: int) -> Statistics:
        unit = step * 2.0**-formats.MEAN_FRAC
        units = round(self.epsilon / unit**2)
        assert units <= _EPSILON_MAX, f"an epsilon of {self.epsilon} in steps of {step}"
        return Statistics(*formats.inv_dim(dim), units, self.centred)


@dataclass(frozen=True)
class LayerNorm(_OfRows):
    """``(x - mean) / sqrt(variance + epsilon)``."""

    centred = True

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        centred = rows - rows.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.epsilon)


@dataclass(frozen=True)
class RMSNorm(_OfRows):
    """``x / sqrt(mean square + epsilon)``."""

    centred = False

    def apply(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return rows / np.sqrt(np.mean(rows * rows, axis=-1, keepdims=True) + self.epsilon)
