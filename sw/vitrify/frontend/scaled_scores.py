"""Attention scores that constants scale, shift or mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from .product import LOWEST
from .values import Const, Scores, View

#: Scores up to this weigh nothing beside any other.
_MASKED = -1e3


def scaled(node: ir.Node, scores: Scores, other: Const, reverse: bool) -> Scores | None:
    """Attention scores scaled, or with a mask or a position bias; ``None`` if it is neither."""
    array = other.array.astype(np.float64)
    if np.broadcast_shapes(scores.shape, array.shape) != scores.shape:
        return None
    if node.op_type == "Add" or (node.op_type == "Sub" and not reverse):
        if not array.any():
            return scores
        if scores.normalised:
            return None
        bias = array if node.op_type == "Add" else -array
        if scores.bias is not None:
            bias = bias + scores.bias
        return replace(scores, bias=np.broadcast_to(bias, scores.shape), view=None)
    divides = node.op_type == "Div"
    if scores.normalised or not (divides or node.op_type == "Mul"):
        return None
    if divides and (reverse or not array.all()):
        return None
    factor = array if node.op_type == "Mul" else 1.0 / array
    bias = None if scores.bias is None else scores.bias * factor
    if array.size == 1:
        number = float(factor.reshape(()))
        return replace(scores, scale=scores.scale * number, bias=bias, view=None)
    if array.ndim >= 1 and array.shape[-1] == 1 and isinstance(scores.q, View):
        # a temperature for each head or query goes into the queries
        return replace(scores, q=scores.q.affine(factor, 0.0, other.name), bias=bias, view=None)
    return None


def masked(scores: Scores, kept: np.ndarray, otherwise: np.ndarray) -> Scores | None:
    """Scores where ``kept`` holds and large negative numbers elsewhere, or ``None``."""
    if np.broadcast_shapes(scores.shape, kept.shape) != scores.shape or otherwise.max() > _MASKED:
        return None
    if not kept.any(axis=-1).all():
        return None  # a row that is masked as a whole weighs all alike
    bias = 0.0 if scores.bias is None else scores.bias
    return replace(
        scores, bias=np.broadcast_to(np.where(kept, bias, LOWEST), scores.shape), view=None
    )
