"""The larger of two tensors, by a sum."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder
from vitrify.quant.decompose import inputs


def decompose_maximum(builder: Builder, node: ir.Node) -> ir.Value:
    """``Maximum``: the second, and by how much the first is larger."""
    x, y = inputs(node)
    zero = np.zeros((1, 1))
    less = builder.emit("Affine", y, zero - 1, zero)
    more = builder.emit("Activation", builder.emit("Add", less, x), kind="relu")
    return builder.emit("Add", more, y)
