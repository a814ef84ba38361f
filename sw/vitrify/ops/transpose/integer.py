"""Tokens as channels: what contracts over tokens streams the transposed tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.golden.ops import requantise
from vitrify.quant.evaluation import Evaluation, finish, operand
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Norm, Requant, Statistics

#: A one in matrices that requantise bytes, here, in :mod:`vitrify.ops.product` and of positions.
ONE = 64


@dataclass(frozen=True)
class RowNorm:
    """Rows normalised on the way: ``wide`` makes them int16, ``requant`` ends at int8.

    ``gain`` is that of every channel (``golden.ops.layernorm``).
    """

    wide: Requant
    statistics: Statistics
    gain: int

    def transform(self, channels: int) -> Norm:
        """Of what reads the int16 rows."""
        return Norm(np.full(channels, self.gain, np.uint8), statistics=True)


@dataclass(frozen=True, kw_only=True)
class QTranspose(QOp):
    """``out = requant(ONE * x.T)`` of int8 tensors, each of ``row_groups`` runs of rows by itself.

    The results of the runs, ``[channels, rows]`` each, lie one below the other.  With ``norm``
    they are normalised before.
    """

    x: str
    requant: Requant
    row_groups: int = 1
    norm: RowNorm | None = None
    #: Softmax reads the result: the largest of each row is gathered.
    logits: bool = False

    def sources(self) -> tuple[str, ...]:
        return (self.x,)

    def stationary(self) -> tuple[str, ...]:
        return (self.x,)

    def evaluate(self, run: Evaluation) -> None:
        x = run.read(self.x).astype(np.int64)
        runs = x.reshape(len(x) * self.row_groups, -1, x.shape[2]).swapaxes(1, 2)
        rows = runs.reshape(-1, runs.shape[2])
        if self.norm is not None:
            wide = requantise.to_int16(run.scale(ONE * rows, self.norm.wide))
            statistics = finish(wide[None], self.norm.statistics)
            rows = operand(wide, self.norm.transform(wide.shape[1]), statistics).astype(np.int64)
        value = requantise.to_int8(run.scale(ONE * rows, self.requant))
        run.write(self.out, value.reshape(len(x), -1, rows.shape[1]))
