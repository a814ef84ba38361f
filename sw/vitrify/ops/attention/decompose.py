"""Attention by other functions than softmax, by other operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, attributes_of, shape_of


def decompose_cross_attention(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``CrossAttention``, unless by softmax: scores, a function of them, a product with values."""
    attributes = attributes_of(node)
    q, k, v, bias = (value for value in node.inputs if value is not None)
    kind, scale = attributes.pop("kind"), attributes.pop("scale")
    if kind == "softmax":
        return None
    scores = builder.emit("Product", q, k, **attributes, scale=scale, layout="nt")
    if array_of(bias).any():
        rows, width = (int(size) for size in shape_of(scores)[1:])
        groups, heads = attributes["groups"], attributes["heads"]
        every = np.broadcast_to(array_of(bias), (groups, heads, rows // groups, width // heads))
        shift = every.swapaxes(1, 2).reshape(rows, width)
        scores = builder.emit("Affine", scores, np.ones((1, 1)), shift)
    weights = builder.emit("Activation", scores, kind=kind)
    return builder.emit("Product", weights, v, **attributes, scale=1.0, layout="nn")
