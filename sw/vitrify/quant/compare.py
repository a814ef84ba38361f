"""How far the integer graph is from the float graph, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.config import ArchConfig
from vitrify.ir import Evaluator as FloatEvaluator

from .calibrate import feeds, rows_of
from .evaluate import BATCH, Evaluator
from .graph import QuantGraph


@dataclass(frozen=True)
class Comparison:
    """One op's result against the float tensor it stands for.

    ``sqnr`` is the signal-to-noise ratio in dB, ``error`` the largest deviation, ``peak`` the
    largest magnitude of the float tensor.
    """

    name: str
    value: str
    sqnr: float
    error: float
    peak: float


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
    signal, noise, error, peak = (dict.fromkeys((op.name for op in ops), 0.0) for _ in range(4))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        numbers = {
            name: np.full(len(batch), (tasks or {}).get(name, 0)) for name in graph.tasks
        }
        exact = floats.run(feeds(canonical, batch, numbers))
        result = dict(integers.steps(batch, numbers))
        for op in ops:
            x = rows_of(exact[graph.values[op.name]], op.covered()).astype(np.float64)
            difference = graph.tensors[op.out].dequantise(result[op.name]) - x
            signal[op.name] += float(np.sum(x * x))
            noise[op.name] += float(np.sum(difference * difference))
            error[op.name] = max(error[op.name], float(np.abs(difference).max()))
            peak[op.name] = max(peak[op.name], float(np.abs(x).max()))
        if progress is not None:
            progress(start + len(batch), len(images))
    return [
        Comparison(
            op.name,
            graph.values[op.name],
            _decibel(signal[op.name], noise[op.name]),
            error[op.name],
            peak[op.name],
        )
        for op in ops
    ]


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(max(signal, np.finfo(float).tiny) / noise))
