"""What layers are given when those before them are rounded: the integers of the calibration images.

Where weights have four bits, the inputs of a layer are not those of the float model, and few rows
do not show how hundreds of them depend on each other.  So the graph is evaluated as it grows, and
weights are rounded against every row that comes out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig

from .evaluate import BATCH, Evaluator
from .evaluation import Evaluation, operand
from .graph import QuantGraph
from .operands import Source
from .rounding import Moments
from .tensors import Rows

#: Images that are followed through the layers.
_IMAGES = 64


def followed(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Those of the calibration images that are followed through the layers."""
    return images[:: -(-len(images) // _IMAGES)]


class Loop:
    """The graph as far as it is assembled, run on calibration images of task 0.

    Parameters
    ----------
    graph : takes ops while this follows
    images : float32 ``[N, C, H, W]``
    influence : of rows of the layers' results, for the images that are :func:`followed`
    """

    def __init__(
        self, graph: QuantGraph, arch: ArchConfig, images: npt.NDArray[np.float32],
        influence: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._images, self._influence = followed(images), influence or {}
        self._graph, self._evaluator = graph, Evaluator(graph, arch)
        self._runs: list[Evaluation] = []
        self._done = 0
        #: Neighbours often read the same.
        self._latest: tuple[Source, npt.NDArray[np.float32]] | None = None

    def moments(self, x: Source, tensor: str, rows: Rows | None, layer: str) -> Moments:
        """Of the integers of ``x``, which reads ``rows`` of a tensor that is there.

        A row counts as much as what ``layer`` makes of it does.
        """
        if self._latest is None or self._latest[0] is not x:
            self._follow()
            parts = [self._inputs(run, x, tensor, rows) for run in self._runs]
            self._latest = x, np.concatenate(parts)
        samples = self._latest[1]
        return Moments(samples, self._weights(layer, rows, len(samples)))

    def _weights(
        self, layer: str, rows: Rows | None, count: int
    ) -> npt.NDArray[np.float32] | None:
        """How much each of so many samples counts; ``None`` if nobody knows."""
        known = self._influence.get(layer)
        if known is None:
            return None
        if rows is not None and known.shape[1] != rows.count and known.shape[1] > max(rows.index):
            known = rows.of(known)
        return known.reshape(-1) if known.size == count else None

    def _follow(self) -> None:
        """Evaluate the ops that have come since."""
        if not self._runs:
            starts = range(0, len(self._images), BATCH)
            self._runs = [self._evaluator.begin(self._images[at : at + BATCH]) for at in starts]
        for run in self._runs:
            for op in self._graph.ops[self._done :]:
                op.evaluate(run)
        self._done = len(self._graph.ops)

    @staticmethod
    def _inputs(
        run: Evaluation, x: Source, tensor: str, rows: Rows | None
    ) -> npt.NDArray[np.float32]:
        value, statistics = run.read(tensor), run.row_statistics(tensor)
        if rows is not None:
            every = np.arange(value.shape[0] * value.shape[1]).reshape(value.shape[:2])
            statistics = statistics and statistics.select(rows.of(every).reshape(-1))
            value = rows.of(value)
        flat = operand(value.reshape(-1, value.shape[2]), x.norm, statistics)
        return flat.astype(np.float32) - x.zero_point
