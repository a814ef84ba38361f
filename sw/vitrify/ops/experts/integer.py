"""Mixtures of experts in integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitrify.golden.ops import requantise, routing
from vitrify.golden.ops.matmul import matmul
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.evaluation import Evaluation, operand
from vitrify.quant.graph import Branch, Layer, QOp
from vitrify.quant.tensors import Statistics


@dataclass(frozen=True, kw_only=True)
class QExperts(QOp):
    """``out = residual +`` the weighted results of each row's best experts, all int16.

    The ``choices`` largest of ``logits`` (int16, see ``golden.ops.routing``) choose; the weights
    are their softmax over all experts, or with ``normalise`` over the chosen ones.  An expert is a
    pair of layers: ``x`` to a hidden tensor of its own, and that to ``out`` with ``add``.
    """

    x: str
    logits: str
    residual: str
    choices: int
    normalise: bool
    experts: tuple[tuple[QLinear, QLinear], ...]
    statistics: Statistics | None = None
    #: Share of the images in which anybody asks for an expert, as far as known.
    usage: tuple[float, ...] = ()

    def sources(self) -> tuple[str, ...]:
        return (self.x, self.logits, self.residual)

    def routed_by(self) -> tuple[str, ...]:
        return (self.logits,)

    def layers(self) -> Iterator[Layer]:
        for branch in self.branches():
            yield from branch.layers

    def branches(self) -> Iterator[Branch]:
        usage = self.usage or (1.0,) * len(self.experts)
        for number, (pair, share) in enumerate(zip(self.experts, usage, strict=True)):
            yield Branch(number, tuple(one for layer in pair for one in layer.layers()), share)

    def evaluate(self, run: Evaluation) -> None:
        """Expert by expert in ascending order, as saturating additions have to be."""
        x, logits, total = (run.read(name) for name in (self.x, self.logits, self.residual))
        statistics, shape = run.row_statistics(self.x), total.shape
        x, logits, total = (a.reshape(-1, a.shape[2]) for a in (x, logits, total.copy()))
        chosen, weight = routing.gate(logits, self.choices, normalise=self.normalise)
        for number, (first, second) in enumerate(self.experts):
            row, choice = np.nonzero(chosen == number)
            if not len(row):
                continue
            own = None if statistics is None else statistics.select(row)
            hidden = requantise.to_int8(
                run.scale(matmul(operand(x[row], first.norm, own), first.weight), first.requant),
                first.table,
            )
            value = run.scale(matmul(hidden, second.weight), second.requant, weight[row, choice])
            total[row] = requantise.to_int16(value, total[row])
        run.write(self.out, total.reshape(shape), self.statistics)
