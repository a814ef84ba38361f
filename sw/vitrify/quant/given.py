"""Formats that an already quantised model brings: kept where the core has them, else listed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.arch.formats import INT8
from vitrify.ir.quantisers import Quantiser

from .calibrate import Request, Stats
from .graph import QuantGraph
from .scheme import Format
from .tensors import QTensor

#: Relative difference of scales that are the same.
_SAME = 1e-5
#: Difference of zero points that are the same.
_NEAR = 0.01
#: Bytes of the list that a program carries, at most: some hundred formats.
_MOST_BYTES = 1 << 14


@dataclass(frozen=True)
class Byte:
    """Format of a tensor of signed bytes: ``real = step * (q - zero)``."""

    step: float
    zero: int

    @property
    def format(self) -> Format:
        """As :mod:`vitrify.quant.scheme` takes it."""
        return self.step, self.zero

    @property
    def offset(self) -> float:
        """Real value of the byte 0."""
        return -self.step * self.zero


class Given:
    """What the quantisers of a file say of the canonical tensors.

    Parameters
    ----------
    quantisers : all, those without a canonical tensor included
    """

    def __init__(self, quantisers: Iterable[Quantiser] = ()) -> None:
        self.quantisers = tuple(quantisers)
        # the last one: behind all that only moves the tensor
        self._of = {q.value: q for q in self.quantisers if q.value}

    def __bool__(self) -> bool:
        return bool(self.quantisers)

    def __contains__(self, value: str) -> bool:
        return value in self._of

    def byte(self, value: str) -> Byte | None:
        """The format of a canonical tensor, if the file has one that bytes can have."""
        found = self._of.get(value)
        byte = None if found is None else found.byte
        return None if byte is None else Byte(*byte)

    def ranged(self, stats: Mapping[Request, Stats]) -> dict[Request, Stats]:
        """``stats`` of images that stand for others, stretched to the ranges of the file."""
        return {
            request: self._stretched(request, found) for request, found in stats.items()
        }

    def _stretched(self, request: Request, stats: Stats) -> Stats:
        own = self._of.get(request.value)
        if own is None or request.norm is not None or request.beside is not None:
            return stats
        low, high = own.bounds
        factor = max(-low, high) / max(float(stats.peak.max()), 1e-9)
        return replace(
            stats, low=np.maximum(stats.low * factor, low),
            high=np.minimum(stats.high * factor, high),
            total=stats.total * factor, rows=np.clip(stats.rows * factor, low, high),
        )  # fmt: skip


@dataclass
class Kept:
    """What of a model's own formats is kept beside those of tensors, gathered layer by layer."""

    #: Tensors before a table, whose format is that of its entries.
    tables: set[str] = field(default_factory=set)
    #: By layer: whether weights that were integers times a step are still these integers.
    weights: dict[str, bool] = field(default_factory=dict)


def told(given: Given, kept: Kept, canonical: ir.Model, graph: QuantGraph) -> list[dict[str, str]]:
    """For each quantiser of the file, and for weights, what the core has instead.

    Returns
    -------
    Rows ``tensor``, ``file``, ``core`` and ``why``, which is empty where the format is the same.
    """
    if not given:
        return []
    made = {graph.values[op.name]: graph.tensors[op.out] for op in graph.ops
            if op.name in graph.values}
    kinds = {v.name: node.op_type for node in canonical.graph for v in node.outputs}
    rows = []
    for q in given.quantisers:
        core, why = _told(q, made.get(q.value), kept, graph, kinds.get(q.value, ""))
        rows.append({"tensor": q.tensor, "file": str(q), "core": core, "why": why})
    for layer, same in kept.weights.items():
        why = "" if same else "factors of the input's channels go into them, and they are rounded"
        rows.append({"tensor": layer, "file": "weights", "core": "int8", "why": why})
    return rows


def facts(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What a program carries of :func:`told`: how many formats are kept, and those that are not."""
    changed = [dict(row) for row in rows if row["why"]]
    shown = changed
    while len(json.dumps(shown)) > _MOST_BYTES:
        shown = shown[: len(shown) // 2]
    return {
        "kept": len(rows) - len(changed), "changed": shown, "left_out": len(changed) - len(shown),
    }


def _told(
    quantiser: Quantiser, tensor: QTensor | None, kept: Kept, graph: QuantGraph, kind: str
) -> tuple[str, str]:
    """What the core has for a quantiser, and why that is something else."""
    byte = quantiser.byte
    if quantiser.value == graph.input.name:
        multiplier, offset = graph.input.multiplier, graph.input.offset
        if byte is not None and np.allclose(multiplier * byte[0], 1, rtol=_SAME) and (
            np.allclose(offset, byte[1], atol=_NEAR)
        ):
            return str(quantiser), ""
        return "uint8", "pixels as they are, which the preprocessing maps exactly"
    if not quantiser.value:
        return "none", "computed within a larger operation of the core"
    if quantiser.value in kept.tables:
        return str(quantiser), ""
    if tensor is None:
        if kind == "LayerNorm":
            return "int8", "normalised when it is read, with a gain for each channel"
        return "none", "goes into a sum or a table at once"
    if tensor.bits != INT8.bits:
        step = float(np.max(tensor.scale))
        return f"int{tensor.bits}, scale {step:.4g}", "sums and results have 16 bits"
    if np.ndim(tensor.scale):
        return f"int8, {np.size(tensor.scale)} scales", "as its readers take it, channel by channel"
    scale, offset = float(tensor.scale), np.asarray(tensor.offset, np.float64)
    zero = tensor.zero_point - float(np.mean(offset)) / scale
    core = f"int8, scale {scale:.4g}, zero {zero:.4g}"
    if byte is None:
        return core, "operands of products have 8 bits"
    same = (
        abs(scale / byte[0] - 1) <= _SAME and abs(zero - byte[1]) <= _NEAR
        and not tensor.copies and np.ptp(offset) <= _NEAR * scale
    )
    return core, "" if same else "follows from what it is made of, or read by"
