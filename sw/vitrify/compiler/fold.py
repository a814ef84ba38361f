"""Results of few channels: several rows of them become one.

A row takes whole words of the token memory, and of DRAM: a number for each pixel takes as much as
32 on a core of depth 32, and no program can store what it has no room for.  The layers that end
there make several rows side by side instead, with their weights once for each: the same integers,
in as many cycles.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from vitrify.arch.config import ArchConfig
from vitrify.arch.formats import MAX_DEPTH
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.graph import OutputForm, QuantGraph
from vitrify.quant.tensors import QTensor
from vitrify.quant.windows import Window

T = TypeVar("T")


def fold_results(graph: QuantGraph, arch: ArchConfig) -> QuantGraph:
    """The graph with rows of results side by side, where that takes less memory.

    Results are, flat, what they were: ``[rows, channels]`` as ``[rows / n, n * channels]``.
    """
    for name in dict.fromkeys(graph.outputs.values()):
        chain = _chain(graph, arch, name)
        count = _side_by_side(graph, arch, chain) if chain else 1
        if count > 1:
            graph = _folded(graph, chain, count)
    return graph


def _chain(graph: QuantGraph, arch: ArchConfig, name: str) -> list[QLinear]:
    """The layers that end in a tensor, the last first, with nothing but tensors of few channels."""
    found: list[QLinear] = []
    outputs = set(graph.outputs.values())
    while True:
        makers = [op for op in graph.ops if name in op.results()]
        others = [
            op for op in graph.ops if name in op.sources() and not any(op is one for one in found)
        ]
        if len(makers) != 1 or others or (found and name in outputs):
            return found
        op, narrow = makers[0], 2 * graph.tensors[name].channels <= arch.depth
        if not (narrow and isinstance(op, QLinear) and _plain(op)):
            return found
        found.append(op)
        name = op.x


def _plain(op: QLinear) -> bool:
    """Whether every row of the result is made of the same row of ``x``, of bytes as they are."""
    more = (op.norm, op.times, op.statistics, op.rows, op.task, op.window, op.into, op.band)
    return not op.add and all(each is None for each in more)


def _side_by_side(graph: QuantGraph, arch: ArchConfig, chain: list[QLinear]) -> int:
    """Rows that become one, as many as a word has room for."""
    first = chain[-1]
    rows = graph.tensors[first.x].rows
    words = -(-graph.tensors[first.x].channels // arch.depth)
    most = arch.depth // max(graph.tensors[op.out].channels for op in chain)
    most = min(most, MAX_DEPTH // (words * arch.depth))
    if any(first.x in op.groups() for op in graph.ops):
        return 1  # its words are those of heads
    weights = sum(op.weight.size for op in chain)

    def saved(count: int) -> int:
        """Bytes of results, less those of weights."""
        return (rows - rows // count) * arch.depth - (count**2 - 1) * weights

    return max((n for n in range(1, most + 1) if rows % n == 0), key=saved, default=1)


def _folded(graph: QuantGraph, chain: list[QLinear], count: int) -> QuantGraph:
    """``count`` rows of every tensor that the layers make as one row of it."""
    made = {op.out for op in chain}
    tensors = {
        name: _wider(tensor, count) if name in made else tensor
        for name, tensor in graph.tensors.items()
    }
    layers = {
        op.out: replace(
            op, weight=np.kron(np.eye(count, dtype=np.int8), op.weight), covers=None,
            requant=replace(
                op.requant, multiplier=_each(op.requant.multiplier, count),
                bias=_each(op.requant.bias, count),
            ),
            window=None if op is not chain[-1] else Window(
                (graph.tensors[op.x].rows // count, count), (1, count)
            ),
        ) for op in chain
    }
    forms = dict(graph.forms)
    for name, tensor in graph.outputs.items():
        if tensor in made:
            before, form = graph.tensors[tensor], forms.get(name, OutputForm())
            forms[name] = replace(
                form, factor=_each(form.factor, count), shift=_each(form.shift, count),
            )
            if form.shape is None:
                forms[name] = replace(
                    forms[name], shape=(before.rows, before.channels), steps=(before.channels, 1)
                )
    ops = [layers.get(op.out, op) for op in graph.ops]
    return replace(graph, ops=ops, tensors=tensors, forms=forms)


def _wider(tensor: QTensor, count: int) -> QTensor:
    return replace(
        tensor, rows=tensor.rows // count, channels=tensor.channels * count,
        scale=_each(tensor.scale, count), offset=_each(tensor.offset, count),
    )


def _each(value: T, count: int) -> T:
    """What is one of all columns, or an array of one for each, for so many times the columns."""
    return np.tile(value, count) if isinstance(value, np.ndarray) and value.ndim else value
