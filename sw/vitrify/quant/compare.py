"""How far the integer graph is from the float graph, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.arch.formats import INT8
from vitrify.ir import Evaluator as FloatEvaluator

from .calibrate import feeds, rows_of
from .evaluate import BATCH, Evaluator
from .evaluation import IntArray
from .graph import QuantGraph
from .tensors import Float, QTensor


@dataclass(frozen=True)
class Comparison:
    """One op's result against the float tensor it stands for.

    ``sqnr`` is the signal-to-noise ratio in dB, ``error`` the largest deviation, ``peak`` the
    largest magnitude of the float tensor; ``clipped`` is the share of integers of ``bits`` bits at
    an end of their format whose float lies more than half a step away.
    """

    name: str
    value: str
    sqnr: float
    error: float
    peak: float
    low: float
    high: float
    clipped: float
    bits: int


def compare(
    canonical: ir.Model,
    graph: QuantGraph,
    images: npt.NDArray[np.float32],
    arch: ArchConfig,
    progress: Callable[[int, int], None] | None = None,
    *,
    tasks: Mapping[str, int] | None = None,
) -> list[Comparison]:
    """Compare every op's result over ``images``, in execution order.

    Parameters
    ----------
    images : float32 ``[N, C, H, W]``, preprocessed
    progress : told images done and in all
    tasks : the task of all images by the input that chooses; 0 without
    """
    ops = [op for op in graph.ops if op.name in graph.values]
    names = list(dict.fromkeys(graph.values[op.name] for op in ops))
    floats = FloatEvaluator(canonical, names)
    integers = Evaluator(graph, arch)
    found = {op.name: _Sums() for op in ops}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        numbers = {
            name: np.full(len(batch), (tasks or {}).get(name, 0)) for name in graph.tasks
        }
        exact = floats.run(feeds(canonical, batch, numbers))
        result = dict(integers.steps(batch, numbers))
        for op in ops:
            x = rows_of(exact[graph.values[op.name]], op.covered()).astype(np.float64)
            found[op.name].add(x, result[op.name], graph.tensors[op.out])
        if progress is not None:
            progress(start + len(batch), len(images))
    return [
        found[op.name].comparison(op.name, graph.values[op.name], graph.tensors[op.out].bits)
        for op in ops
    ]


@dataclass
class _Sums:
    """What is known of an op's result after some batches."""

    signal: float = 0.0
    noise: float = 0.0
    error: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    clipped: int = 0
    count: int = 0

    def add(self, x: Float, q: IntArray, tensor: QTensor) -> None:
        """Floats ``x [N, rows, channels]``, and the integers for them."""
        difference = np.abs(tensor.dequantise(q) - x)
        bounds = np.iinfo(np.int8 if tensor.bits == INT8.bits else np.int16)
        ends = ((q == bounds.min) | (q == bounds.max))[..., : x.shape[-1]]
        step = np.abs(tensor.scale if np.ndim(tensor.scale) == 0
                      else np.asarray(tensor.scale)[..., : x.shape[-1]])
        self.signal += float(np.sum(x * x))
        self.noise += float(np.sum(difference * difference))
        self.error = max(self.error, float(difference.max()))
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.clipped += int(np.count_nonzero(ends & (difference > step / 2)))
        self.count += x.size

    def comparison(self, name: str, value: str, bits: int) -> Comparison:
        """The result."""
        return Comparison(
            name, value, _decibel(self.signal, self.noise), self.error,
            max(-self.low, self.high), self.low, self.high, self.clipped / self.count, bits,
        )


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, np.finfo(float).tiny) / noise))
