"""What layers are given when those before them are rounded: the integers of the calibration images.

Where weights have four bits, the inputs of a layer are not those of the float model, and few rows
do not show how hundreds of them depend on each other.  So the graph is evaluated as it grows, and
weights are rounded against every row that comes out.
"""

from __future__ import annotations

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


class Loop:
    """The graph as far as it is assembled, run on calibration images of task 0.

    Parameters
    ----------
    graph : takes ops while this follows
    images : float32 ``[N, C, H, W]``
    """

    def __init__(
        self, graph: QuantGraph, arch: ArchConfig, images: npt.NDArray[np.float32]
    ) -> None:
        self._images = images[:: -(-len(images) // _IMAGES)]
        self._graph, self._evaluator = graph, Evaluator(graph, arch)
        self._runs: list[Evaluation] = []
        #: Ops and constants that the runs have seen.
        self._done = self._known = 0
        #: Neighbours often read the same.
        self._latest: tuple[Source, Moments] | None = None

    def moments(self, x: Source, tensor: str, rows: Rows | None) -> Moments:
        """Of the integers of ``x``, which reads ``rows`` of a tensor that is there."""
        if self._latest is None or self._latest[0] is not x:
            self._follow()
            parts = [self._inputs(run, x, tensor, rows) for run in self._runs]
            self._latest = x, Moments(np.concatenate(parts))
        return self._latest[1]

    def _follow(self) -> None:
        """Evaluate the ops that have come since."""
        if not self._runs:
            starts = range(0, len(self._images), BATCH)
            self._runs = [self._evaluator.begin(self._images[at : at + BATCH]) for at in starts]
            self._known = len(self._graph.constants)
        for run in self._runs:
            self._evaluator.write_constants(run, self._known)
            for op in self._graph.ops[self._done :]:
                op.evaluate(run)
        self._done, self._known = len(self._graph.ops), len(self._graph.constants)

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
