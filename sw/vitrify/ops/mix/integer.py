"""Constant matrices over tokens in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitrify.quant.evaluation import Evaluation
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Int8, Requant, Statistics


@dataclass(frozen=True, kw_only=True)
class QMix(QOp):
    """``out = requant(matrix of the head @ x)``, or added to the bias of each row (``add``).

    ``matrix [heads, out, in]`` streams past the rows of ``x``, of which each of ``row_groups``
    runs is multiplied by itself.  ``requants``: one a head, with a single multiplier.
    """

    x: str
    matrix: Int8
    requants: tuple[Requant, ...]
    row_groups: int
    add: bool
    statistics: Statistics | None = None

    def sources(self) -> tuple[str, ...]:
        return (self.x, self.out) if self.add else (self.x,)

    def stationary(self) -> tuple[str, ...]:
        return (self.x,)

    def groups(self) -> Mapping[str, int]:
        return dict.fromkeys((self.x, self.out), len(self.matrix))

    def evaluate(self, run: Evaluation) -> None:
        heads, out, inner = self.matrix.shape
        x = run.read(self.x).astype(np.int64)
        blocks = x.reshape(run.images * self.row_groups, inner, heads, -1)
        made = [
            run.scale(matrix.astype(np.int64) @ blocks[:, :, head], requant)
            for head, (matrix, requant) in enumerate(zip(self.matrix, self.requants, strict=True))
        ]
        value = np.concatenate(made, axis=2).reshape(run.images, self.row_groups * out, -1)
        run.write(self.out, run.store(self.out, value, add=self.add), self.statistics)
