"""Mean over tokens in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.quant.evaluation import Evaluation
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Requant, Statistics


@dataclass(frozen=True, kw_only=True)
class QPool(QOp):
    """Mean over rows ``start`` … ``stop - 1`` of an int8 tensor: constant weights times ``x``.

    Every row enters with the same operand ``weight`` (1 … 127); the single multiplier of
    ``requant`` divides.
    """

    x: str
    start: int
    stop: int
    weight: int
    requant: Requant
    statistics: Statistics | None = None

    def sources(self) -> tuple[str, ...]:
        return (self.x,)

    def stationary(self) -> tuple[str, ...]:
        return (self.x,)

    def evaluate(self, run: Evaluation) -> None:
        x = run.read(self.x)
        acc = self.weight * x[:, self.start : self.stop].astype(np.int64).sum(axis=1, keepdims=True)
        run.write(self.out, run.store(self.out, run.scale(acc, self.requant)), self.statistics)
