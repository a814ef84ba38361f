"""Mean over tokens in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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

    def rows_read(self, made: range) -> Mapping[str, range] | None:
        return {self.x: range(self.start, self.stop)}

    def part(self, made: range, kept: Mapping[str, range]) -> QOp | None:
        first = kept[self.x].start
        return replace(self, start=self.start - first, stop=self.stop - first)

    def evaluate(self, run: Evaluation) -> None:
        x = run.read(self.x)
        acc = self.weight * x[:, self.start : self.stop].astype(np.int64).sum(axis=1, keepdims=True)
        run.write(self.out, run.store(self.out, run.scale(acc, self.requant)), self.statistics)
