"""Direct evaluation of the integer graph over the golden kernels, image batch by image batch.

Independent of compiler and machine: when the machine's tensors differ from these, the compiler is
at fault; when both differ from the RTL, a kernel is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.golden.ops import layernorm, requantise, routing, softmax
from vitrify.golden.ops.matmul import matmul

from .graph import (
    QAttention,
    QExperts,
    QInput,
    QLinear,
    QPool,
    QTensor,
    QuantGraph,
    QWeighing,
    Requant,
    Statistics,
)

IntArray = npt.NDArray[np.signedinteger[Any]]
#: Task number of every image ``[N]``, by the name of the input.
Tasks = Mapping[str, npt.NDArray[np.integer[Any]]]
#: Images evaluated together: bounds the memory of the intermediate integers.
BATCH = 8


class _Rows(NamedTuple):
    """Of each row of a tensor, as LayerNorm reads them."""

    mean: IntArray
    shift: IntArray
    mantissa: IntArray


def quantise_input(spec: QInput, images: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Float images ``[N, C, H, W]`` to the int8 rows ``[N, rows, C*ph*pw]`` of the core."""
    q = images * spec.multiplier[:, None, None] + spec.offset[:, None, None]
    q = np.clip(np.round(q), -128, 127).astype(np.int8)
    n, channels, height, width = q.shape
    ph, pw = spec.patch
    patches = q.reshape(n, channels, height // ph, ph, width // pw, pw)
    rows = patches.transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * ph * pw)
    return np.pad(rows, ((0, 0), (spec.prefix, 0), (0, 0)))


class Evaluator:
    """Runs a :class:`~vitrify.quant.graph.QuantGraph` with the integer kernels.

    Parameters
    ----------
    arch : only ``requant_bits`` enters the result
    """

    def __init__(self, graph: QuantGraph, arch: ArchConfig) -> None:
        self.graph = graph
        self.requant_bits = arch.requant_bits

    def run(
        self,
        images: npt.NDArray[np.floating],
        keep: Collection[str] | None = None,
        tasks: Tasks | None = None,
    ) -> dict[str, IntArray]:
        """Integers of every op's result (by op name), and of the input (by tensor name).

        Parameters
        ----------
        images : float ``[N, C, H, W]``, preprocessed
        keep : names wanted; all when ``None``
        tasks : of every image; task 0 without

        Returns
        -------
        Arrays ``[N, rows, channels]``.  An op that adds to a tensor gives the sum.
        """
        parts: dict[str, list[IntArray]] = {}
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            chosen = {name: numbers[some] for name, numbers in (tasks or {}).items()}
            for name, value in self.steps(images[some], chosen):
                if keep is None or name in keep:
                    # Later additions happen out of place, so no copy is needed.
                    parts.setdefault(name, []).append(value)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def outputs(
        self, images: npt.NDArray[np.floating], tasks: Tasks | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Real values ``[N, rows, channels]`` of the graph's outputs, by ONNX name."""
        last = {op.out: op.name for op in self.graph.ops}
        wanted = {name: last[tensor] for name, tensor in self.graph.outputs.items()}
        result = self.run(images, set(wanted.values()), tasks)
        return {
            name: self.graph.tensors[self.graph.outputs[name]].dequantise(result[op])
            for name, op in wanted.items()
        }

    def steps(
        self, images: npt.NDArray[np.floating], tasks: Tasks | None = None
    ) -> Iterator[tuple[str, IntArray]]:
        """One batch: ``(name, integers [N, rows, channels])`` op by op."""
        graph = self.graph
        rows = quantise_input(graph.input, images)
        state: dict[str, IntArray] = {graph.input.out: rows}
        for constant in graph.constants:
            state[constant.out] = np.broadcast_to(
                constant.value, (len(images), *constant.value.shape)
            )
        statistics: dict[str, _Rows] = {}
        yield graph.input.out, rows
        for op in graph.ops:
            tensor = graph.tensors[op.out]
            if isinstance(op, QLinear):
                numbers = (tasks or {}).get(op.task or "", np.zeros(len(images), np.int64))
                out = self._linear(op, state, statistics.get(op.x), numbers)
            elif isinstance(op, QAttention):
                out = self._attention(op, state[op.q], state[op.k], state[op.v])
                for weighing in op.weighings:
                    self._weigh(weighing, state[weighing.logits], out, op.heads)
            elif isinstance(op, QExperts):
                out = self._experts(op, state, statistics.get(op.x))
            else:
                out = self._pool(op, state[op.x], tensor)
            state[op.out] = out
            if not isinstance(op, QAttention) and op.statistics is not None:
                statistics[op.out] = _finish(out, op.statistics)
            yield op.name, out

    # Ops -----------------------------------------------------------------------------------
    def _scale(self, acc: IntArray, requant: Requant, gate: IntArray | None = None) -> IntArray:
        multiplier = np.asarray(requant.multiplier, np.int64)
        return requantise.scale(
            acc,
            bias=requant.bias,
            pre_shift=requant.pre_shift,
            multiplier=multiplier if gate is None else routing.scale(multiplier, gate),
            post_shift=requant.post_shift,
            requant_bits=self.requant_bits,
        )

    def _linear(
        self,
        op: QLinear,
        state: dict[str, IntArray],
        statistics: _Rows | None,
        numbers: npt.NDArray[np.integer[Any]],
    ) -> IntArray:
        x = state[op.x]
        start, count = op.rows or (0, x.shape[1])
        x = x[:, start : start + count]
        batch = x.shape[0]
        flat = x.reshape(-1, x.shape[2])
        if statistics is not None:
            statistics = _Rows(*(
                s.reshape(batch, -1)[:, start : start + count].reshape(-1) for s in statistics
            ))
        flat = _operand(op, flat, statistics)
        if op.task is None:
            value = self._scale(matmul(flat, op.weight), op.requant)
        else:
            operands = flat.reshape(batch, count, -1)
            value = np.concatenate([
                self._scale(matmul(rows, op.weight[n]), _of_task(op.requant, int(n)))
                for rows, n in zip(operands, numbers, strict=True)
            ])
        value = value.reshape(batch, count, -1)
        if self.graph.tensors[op.out].bits == formats.INT8.bits:
            return requantise.to_int8(value, op.table)
        return requantise.to_int16(value, state[op.out] if op.add else None)

    def _experts(
        self, op: QExperts, state: dict[str, IntArray], statistics: _Rows | None
    ) -> IntArray:
        """Expert by expert in ascending order, as saturating additions have to be."""
        x, logits, total = (state[name] for name in (op.x, op.logits, op.residual))
        shape = total.shape
        x, logits, total = (a.reshape(-1, a.shape[2]) for a in (x, logits, total.copy()))
        chosen, weight = routing.gate(logits, op.choices, normalise=op.normalise)
        for number, (first, second) in enumerate(op.experts):
            row, choice = np.nonzero(chosen == number)
            if not len(row):
                continue
            own = None if statistics is None else _Rows(*(s[row] for s in statistics))
            hidden = requantise.to_int8(
                self._scale(matmul(_operand(first, x[row], own), first.weight), first.requant),
                first.table,
            )
            value = self._scale(
                matmul(hidden, second.weight), second.requant, weight[row, choice]
            )
            total[row] = requantise.to_int16(value, total[row])
        return total.reshape(shape)

    def _attention(self, op: QAttention, q: IntArray, k: IntArray, v: IntArray) -> IntArray:
        out = np.empty(q.shape, np.int8)
        dim = q.shape[2] // op.heads
        for image in range(q.shape[0]):
            for head in range(op.heads):
                part = (image, slice(None), slice(head * dim, (head + 1) * dim))
                logits = requantise.to_int8(self._scale(matmul(q[part], k[part]), op.logits))
                weights = softmax.exp2(logits, softmax.row_max(logits))
                shift, factor = softmax.reciprocal(weights.sum(axis=1))
                value = requantise.scale(
                    matmul(weights, v[part].T),
                    bias=0,
                    pre_shift=shift[:, None],
                    multiplier=factor[:, None],
                    post_shift=formats.RECIPROCAL_SHIFT,
                    requant_bits=self.requant_bits,
                )
                out[part] = requantise.to_int8(value)
        return out

    def _weigh(self, op: QWeighing, logits: IntArray, x: IntArray, heads: int) -> None:
        """Multiply the heads of ``x``, in place."""
        flat = logits.reshape(-1, logits.shape[2])
        chosen, weight = routing.gate(flat, op.choices, normalise=op.normalise)
        gates = np.zeros(flat.shape, np.int64)
        np.put_along_axis(gates, chosen, weight, axis=1)
        dim = x.shape[2] // heads
        multiplier, bias = np.asarray(op.requant.multiplier), np.asarray(op.requant.bias)
        # The head's number among those that are weighed, and its logit.
        for number, logit in enumerate(np.repeat(np.arange(len(op.heads)), op.heads)):
            mine = slice(number * dim, (number + 1) * dim)
            out = x[:, :, op.first * dim :][:, :, mine]
            acc = op.weight[mine].astype(np.int64) * out.reshape(-1, dim)
            requant = replace(op.requant, multiplier=multiplier[mine], bias=bias[mine])
            value = self._scale(acc, requant, gates[:, logit])
            out[:] = requantise.to_int8(value).reshape(out.shape)

    def _pool(self, op: QPool, x: IntArray, tensor: QTensor) -> IntArray:
        acc = op.weight * x[:, op.start : op.stop].astype(np.int64).sum(axis=1, keepdims=True)
        value = self._scale(acc, op.requant)
        if tensor.bits == formats.INT8.bits:
            return requantise.to_int8(value)
        return requantise.to_int16(value)


def _operand(op: QLinear, x: IntArray, statistics: _Rows | None) -> IntArray:
    """What the matrix unit gets of the rows ``x`` with their ``statistics``."""
    norm = op.norm
    if norm is None:
        return x
    if norm.statistics:
        assert statistics is not None, f"{op.name}: {op.x} has no statistics"
        return layernorm.apply(x, *statistics, norm.gain)
    mean, shift, mantissa = (
        np.full(len(x), value, np.int64) for value in (0, norm.shift, norm.mantissa)
    )
    return layernorm.apply(x, mean, shift, mantissa, norm.gain)


def _of_task(requant: Requant, number: int) -> Requant:
    multiplier, bias = np.asarray(requant.multiplier), np.asarray(requant.bias)
    return replace(requant, multiplier=multiplier[number], bias=bias[number])


def _finish(x: IntArray, statistics: Statistics) -> _Rows:
    wide = x.reshape(-1, x.shape[2]).astype(np.int64)
    return _Rows(*layernorm.finish(
        wide.sum(axis=1),
        (wide * wide).sum(axis=1),
        inv_dim=statistics.inv_dim,
        inv_shift=statistics.inv_shift,
        epsilon=statistics.epsilon,
    ))
