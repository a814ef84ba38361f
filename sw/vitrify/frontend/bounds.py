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
            # where a function of a tensor is no number, the tensor never is
            every = (np.where(np.isnan(array), np.inf, array) for array in value.samples.values())
            return max(float(array.min()) for array in every)
        case View() if value.mul is None and value.add is None:
            found = _least(value.base)
            return min(found, 0.0) if (value.index == CONSTANT).any() else found
    return -np.inf


def _least(tensor: ir.Value | None) -> float:
    """The same of a tensor of the canonical graph."""
    node = None if tensor is None else tensor.producer()
    if node is not None and node.op_type == "Activation":
        return float(np.nanmin(UNARY[attributes_of(node)["kind"]].reference(GRID)))
    if node is not None and node.op_type == "Multiply":
        first, second = (_least(operand) for operand in node.inputs)
        return first * second if min(first, second) >= 0 else -np.inf
    return -np.inf
