"""Least numbers that activations can be, as far as the operations that make them say."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, attributes_of

from .functions import GRID
from .values import CONSTANT, Elementwise, Traced, View


def least(value: Traced) -> float:
    """No element of ``value`` is less; minus infinity where nothing is known."""
    match value:
        case Elementwise():
            return max(map(_lowest, value.samples.values()))
        case View() if value.mul is None and value.add is None:
            found = _least(value.base)
            return min(found, 0.0) if (value.index == CONSTANT).any() else found
    return -np.inf


def _least(tensor: ir.Value | None) -> float:
    """The same of a tensor of the canonical graph."""
    node = None if tensor is None else tensor.producer()
    if node is not None and node.op_type == "Activation":
        return _lowest(UNARY[attributes_of(node)["kind"]].reference(GRID))
    if node is not None and node.op_type == "Multiply":
        first, second = (_least(operand) for operand in node.inputs)
        return first * second if min(first, second) >= 0 else -np.inf
    return -np.inf


def _lowest(samples: np.ndarray) -> float:
    """The least of a function's values; where it is no number, its tensor never is."""
    return float(samples.min(where=~np.isnan(samples), initial=np.inf))
