"""Softmax as a tensor of its own, in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitrify.golden.ops import requantise
from vitrify.ops.transpose.integer import ONE
from vitrify.quant.evaluation import Evaluation
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Requant

#: What a share of one becomes.
WHOLE = 127


@dataclass(frozen=True, kw_only=True)
class QShares(QOp):
    """``out = WHOLE * softmax`` of an int8 tensor in each of ``heads`` groups of its channels.

    ``logits`` requantises ``ONE * x``.
    """

    x: str
    heads: int
    logits: Requant

    def sources(self) -> tuple[str, ...]:
        return (self.x,)

    def groups(self) -> Mapping[str, int]:
        return dict.fromkeys((self.x, self.out), self.heads)

    def evaluate(self, run: Evaluation) -> None:
        x = run.read(self.x)
        rows = x.reshape(len(x) * x.shape[1] * self.heads, -1).astype(np.int64)
        logits = requantise.to_int8(run.scale(ONE * rows, self.logits))
        made = run.average(logits, WHOLE * np.eye(rows.shape[1], dtype=np.int8))
        run.write(self.out, made.reshape(x.shape))
