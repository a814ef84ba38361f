"""The mean of each channel as a quantised file has it.

Most roundings of a file cannot be in their places on the core, and those of the core are not in the
file.  As far as they are the same for all pictures (a class token between two steps, a function
whose parts are rounded one by one, softmax weights that become zero) biases make up for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.frontend import image_input
from vitrify.ir import Evaluator as FloatEvaluator
from vitrify.ir import shape_of
from vitrify.ir.quantisers import Quantiser
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.calibrate import BATCH, feeds
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph
from vitrify.quant.tensors import Float

#: Pictures that show the means, about.
_IMAGES = 64
#: Fewer do not tell what is much the same for all pictures from what is not.
_LEAST_IMAGES = 8


class _Batch(NamedTuple):
    """Some images, all for one task."""

    images: npt.NDArray[np.float32]
    tasks: dict[str, npt.NDArray[np.int64]]


def with_means_of(
    rounded: ir.Model, quantisers: Sequence[Quantiser], graph: QuantGraph, arch: ArchConfig,
    images: npt.NDArray[np.float32],
) -> None:
    """Give sums and results of ``graph`` the means that they have in a file, op by op, in place.

    Of too few images nothing changes.

    Parameters
    ----------
    rounded : the file, as :func:`vitrify.frontend.rounded` returns it
    quantisers : with the names of canonical tensors
    images : float32 ``[N, C, H, W]``
    """
    if len(images) < _LEAST_IMAGES:
        return
    wanted = _means(rounded, quantisers, graph, images)
    evaluator = Evaluator(graph, arch)
    runs = [evaluator.begin(*batch) for batch in _batches(rounded, graph.tasks, images)]
    for place, op in enumerate(graph.ops):
        mean = wanted.get(graph.values.get(op.name, ""))
        if mean is not None and isinstance(op, QLinear) and op.task is None and op.table is None:
            trials = [run.fork() for run in runs]
            for trial in trials:
                op.evaluate(trial)
            tensor = graph.tensors[op.out]
            found = np.concatenate([tensor.dequantise(trial.read(op.out)) for trial in trials])
            rows = op.covered()
            mean = mean if rows is None else rows.of(mean[None])[0]
            if mean.shape == found.shape[1:]:
                op = graph.ops[place] = _moved(graph, op, (mean - found.mean(axis=0)).mean(axis=0))
        for run in runs:
            op.evaluate(run)


def _moved(graph: QuantGraph, op: QLinear, by: Float) -> QLinear:
    """``op`` with results that are larger ``by [channels]``."""
    part = op.requant
    unit = part.unit * graph.tensors[op.out].scale
    most = (1 << (formats.BIAS_BITS - 1)) - 1
    bias = np.clip(part.bias + np.rint(by / unit), -most, most).astype(np.int32)
    if op.name in graph.scales:
        scales = graph.scales[op.name]
        moved = scales.bias + (bias - part.bias) * unit
        graph.scales[op.name] = replace(scales, bias=moved)
    return replace(op, requant=replace(part, bias=bias))


def _means(
    rounded: ir.Model, quantisers: Sequence[Quantiser], graph: QuantGraph,
    images: npt.NDArray[np.float32],
) -> dict[str, Float]:
    """Of canonical tensors, outputs among them: means ``[T, D]`` of each number over the images."""
    made = {value.name for node in rounded.graph for value in node.outputs}
    aligned = {q.value: q for q in quantisers if q.aligned and q.tensor in made}
    results = {value.name or "" for value in rounded.graph.outputs} & graph.outputs.keys()
    names = {value: q.tensor for value, q in aligned.items()} | {name: name for name in results}
    names = {value: name for value, name in names.items() if value in graph.values.values()}
    judge = FloatEvaluator(rounded, sorted(set(names.values())))
    total: dict[str, Float] = {}
    count = 0
    for batch in _batches(rounded, graph.tasks, images):
        found = judge.run(feeds(rounded, *batch))
        count += len(batch.images)
        for value, name in names.items():
            x = found[name].astype(np.float64)
            x = aligned[value].of(x) if value in aligned else x
            total[value] = total.get(value, 0.0) + x.reshape(len(x), -1, x.shape[-1]).sum(axis=0)
    return {value: part / count for value, part in total.items()}


def _batches(
    rounded: ir.Model, tasks: Mapping[str, int], images: npt.NDArray[np.float32]
) -> Iterator[_Batch]:
    """Images as many at once as the file takes, the tasks in turn."""
    size = shape_of(image_input(rounded))[0]
    size = size if isinstance(size, int) else min(BATCH, len(images))
    some = images[:: -(-len(images) // _IMAGES)]
    for number, start in enumerate(range(0, len(some), size)):
        part = np.take(some, range(start, start + size), axis=0, mode="wrap")
        yield _Batch(part, {
            name: np.full(len(part), number % count) for name, count in tasks.items()
        })
