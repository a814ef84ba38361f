"""Factors with a channel for every few, by other operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, shape_of
from vitrify.ops.product.quotient import quotient, sums_as_product
from vitrify.quant.decompose import inputs


def decompose_multiply(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Multiply`` with a factor whose channels are repeated: as many channels on both sides.

    A quotient stays one, its sums made by a product.
    """
    if (made := sums_as_product(builder, node)) is not None:
        return made
    x, y = inputs(node)
    dim, width = (int(shape_of(value)[-1]) for value in (x, y))
    if dim == width or quotient(node) is not None:
        return None
    index = np.repeat(np.arange(width), dim // width).tolist()
    return builder.emit("Multiply", x, builder.emit("Channels", y, index=index))
