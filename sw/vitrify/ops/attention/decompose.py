"""Attention by other functions than softmax, by other operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.quant.decompose import inputs


def negated(builder: Builder, node: ir.Node) -> ir.Value | None:
    """A negative scale of products goes into their first operand: multipliers have no sign."""
    attributes = attributes_of(node)
    if attributes["scale"] >= 0:
        return None
    x, *others = inputs(node)
    turned = builder.emit("Affine", x, -np.ones((1, 1)), np.zeros((1, 1)))
    attributes["scale"] *= -1
    return builder.emit(node.op_type, turned, *others, **attributes)


def decompose_cross_attention(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``CrossAttention``: scores, a function of them that is no softmax, a product with values."""
    attributes = attributes_of(node)
    q, k, v, bias = (value for value in node.inputs if value is not None)
    kind, scale = attributes.pop("kind"), attributes.pop("scale")
    if kind == "softmax":
        return negated(builder, node)
    scores = builder.emit("Product", q, k, **attributes, scale=scale, layout="nt")
    if array_of(bias).any():
        rows, width = (int(size) for size in shape_of(scores)[1:])
        groups, heads = attributes["groups"], attributes["heads"]
        every = np.broadcast_to(array_of(bias), (groups, heads, rows // groups, width // heads))
        shift = every.swapaxes(1, 2).reshape(rows, width)
        scores = builder.emit("Affine", scores, np.ones((1, 1)), shift)
    weights = builder.emit("Activation", scores, kind=kind)
    return builder.emit("Product", weights, v, **attributes, scale=1.0, layout="nn")
