"""Rows of the image that come from DRAM when they are read, and sums that are set aside."""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.quant.evaluation import Evaluation
from vitrify.quant.graph import QOp


@dataclass(frozen=True, kw_only=True)
class QRead(QOp):
    """Some ``rows`` of the image ``image``, which need not be in memory."""

    image: str
    rows: range

    def sources(self) -> tuple[str, ...]:
        return ()

    def evaluate(self, run: Evaluation) -> None:
        run.write(self.out, run.read(self.image)[:, self.rows.start : self.rows.stop])


@dataclass(frozen=True, kw_only=True)
class QAside(QOp):
    """What tensor ``x`` holds is called ``out``, while ``x`` is made anew.

    Bands of the new one need not keep the old one's rows for the bands behind them.
    """

    x: str

    def sources(self) -> tuple[str, ...]:
        return (self.x,)

    def evaluate(self, run: Evaluation) -> None:
        run.rename(self.x, self.out)
