"""Scales and shifts that differ from token to token, by other operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, shape_of
from vitrify.quant.decompose import inputs


def decompose_affine(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Affine``: scales of tokens are a product with constant rows, shifts are positions."""
    x, *parameters = inputs(node)
    scale, shift = map(array_of, parameters)
    if not (_by_token(scale) or _by_token(shift)):
        return None
    size = tuple(int(each) for each in shape_of(x)[1:])
    zero = np.zeros((1, 1))
    if _by_token(scale):
        rows = builder.emit("ConstantRows", x, np.broadcast_to(scale, size))
        x = builder.emit("Multiply", x, rows)
    elif np.any(scale != 1):
        x = builder.emit("Affine", x, scale, zero)
    if not _by_token(shift):
        return builder.emit("Affine", x, zero + 1, shift)
    return builder.emit("Tokens", x, np.zeros((0, size[1])), np.broadcast_to(shift, size))


def _by_token(given: np.ndarray) -> bool:
    return bool(np.any(given != given[:1]))
