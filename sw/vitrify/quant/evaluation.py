"""What ops see when they are evaluated: tensors, row statistics and task numbers of a batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.ops import layernorm, requantise, routing, softmax
from vitrify.golden.ops.matmul import matmul

from .tensors import Int8, Norm, QTensor, Requant, Rows, Statistics

IntArray = npt.NDArray[np.signedinteger[Any]]
#: Task number of every image ``[N]``, by the name of the input.
Tasks = Mapping[str, npt.NDArray[np.integer[Any]]]


class RowStatistics(NamedTuple):
    """Of each row of a tensor ``[N * rows]``, as LayerNorm reads them."""

    mean: IntArray
    shift: IntArray
    mantissa: IntArray

    def select(self, index: Any) -> RowStatistics:
        """Those of some rows."""
        return RowStatistics(*(part[index] for part in self))


class Evaluation:
    """A batch of images on its way through the graph.

    Parameters
    ----------
    tensors : of the graph
    images : in the batch
    requant_bits : width of the multiplier's data port
    tasks : of every image; task 0 without
    """

    def __init__(
        self, tensors: Mapping[str, QTensor], images: int, requant_bits: int, tasks: Tasks
    ) -> None:
        self.images = images
        self.requant_bits = requant_bits
        self._tensors = tensors
        self._tasks = tasks
        self._values: dict[str, IntArray] = {}
        self._statistics: dict[str, RowStatistics] = {}

    def fork(self) -> Evaluation:
        """The same batch as it is now, to go another way from here."""
        other = copy.copy(self)
        other._values, other._statistics = dict(self._values), dict(self._statistics)
        return other

    def read(self, name: str) -> IntArray:
        """Integers ``[N, rows, channels]`` of a tensor as it is now."""
        return self._values[name]

    def write(self, name: str, value: IntArray, statistics: Statistics | None = None) -> None:
        """Give a tensor its integers ``[N, rows, channels]``, and its rows their statistics."""
        self._values[name] = value
        if statistics is not None:
            self._statistics[name] = finish(value, statistics)

    def rename(self, name: str, new: str) -> None:
        """Call what a tensor holds, and its statistics, by another name."""
        self._values[new] = self._values.pop(name)
        if name in self._statistics:
            self._statistics[new] = self._statistics.pop(name)

    def row_statistics(self, name: str) -> RowStatistics | None:
        """What was gathered when the tensor was written last with statistics."""
        return self._statistics.get(name)

    def task(self, name: str) -> npt.NDArray[np.integer[Any]]:
        """Task number of each image ``[N]`` from the input ``name``."""
        return self._tasks.get(name, np.zeros(self.images, np.int64))

    def is_int8(self, name: str) -> bool:
        """Whether a tensor has 8 bits."""
        return self._tensors[name].bits == formats.INT8.bits

    def scale(self, acc: IntArray, requant: Requant, gate: IntArray | None = None) -> IntArray:
        """Requantise accumulators ``[rows, columns]``; ``gate [rows]`` scales the multiplier."""
        multiplier = np.asarray(requant.multiplier, np.int64)
        return requantise.scale(
            acc,
            bias=requant.bias,
            pre_shift=requant.pre_shift,
            multiplier=multiplier if gate is None else routing.scale(multiplier, gate),
            post_shift=requant.post_shift,
            requant_bits=self.requant_bits,
        )

    def average(self, logits: IntArray, tiles: IntArray) -> Int8:
        """Softmax of ``logits [rows, n]`` times ``tiles [columns, n]``: ``[rows, columns]``."""
        weights = softmax.exp2(logits, softmax.row_max(logits))
        return self.divide(matmul(weights, tiles), weights.sum(axis=1))

    def divide(self, acc: IntArray, total: IntArray) -> Int8:
        """Accumulators ``[rows, columns]`` by the ``total [rows]`` of each row."""
        shift, factor = softmax.reciprocal(total)
        value = requantise.scale(
            acc,
            bias=0,
            pre_shift=shift[:, None],
            multiplier=factor[:, None],
            post_shift=formats.RECIPROCAL_SHIFT,
            requant_bits=self.requant_bits,
        )
        return requantise.to_int8(value)

    def store(
        self, name: str, value: IntArray, *, table: Int8 | None = None, add: bool = False,
        rows: Rows | None = None, base: str | None = None,
    ) -> IntArray:
        """``value`` in the format of a tensor; with ``add`` added to what it holds, or ``base``.

        It may be that of some ``rows``, and the others stay as they are.
        """
        old = self.read(base or name) if add else None
        if old is not None and rows is not None:
            old = rows.of(old)
        made = requantise.to_int8(value, table) if self.is_int8(name) else (
            requantise.to_int16(value, old)
        )
        return self.put(name, made, rows)

    def put(self, name: str, made: IntArray, rows: Rows | None) -> IntArray:
        """What a tensor holds with ``made`` in some ``rows``; ``None``: in all."""
        if rows is None:
            return made
        whole, tensor = self._values.get(name), self._tensors[name]
        if whole is None:
            whole = np.zeros((self.images, tensor.rows, tensor.channels), made.dtype)
        whole = whole.copy()
        whole[:, list(rows.index)] = made
        return whole


def operand(x: IntArray, norm: Norm | None, statistics: RowStatistics | None) -> IntArray:
    """What the matrix unit gets of the rows ``x [rows, channels]`` with their ``statistics``."""
    if norm is None:
        return x
    if norm.statistics:
        assert statistics is not None, "a normalised operand has no statistics"
        return layernorm.apply(x, *statistics, norm.gain)
    mean, shift, mantissa = (
        np.full(len(x), value, np.int64) for value in (0, norm.shift, norm.mantissa)
    )
    return layernorm.apply(x, mean, shift, mantissa, norm.gain)


def finish(x: IntArray, statistics: Statistics) -> RowStatistics:
    """Statistics of every row of ``x [N, rows, channels]``."""
    wide = x.reshape(-1, x.shape[2]).astype(np.int64)
    return RowStatistics(*layernorm.finish(
        wide.sum(axis=1),
        (wide * wide).sum(axis=1),
        inv_dim=statistics.inv_dim,
        inv_shift=statistics.inv_shift,
        epsilon=statistics.epsilon,
        centred=statistics.centred,
    ))
