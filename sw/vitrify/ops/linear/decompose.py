"""Sums over more channels than the accumulators hold, by sums of layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.arch.formats import MAX_DEPTH
from vitrify.ir import Builder, array_of, attributes_of
from vitrify.quant.decompose import inputs


def decompose_deep(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Linear`` or ``Conv`` of too many channels: a layer for each part of them, added up."""
    (x, weight, bias), attributes = inputs(node), attributes_of(node)
    matrix, shift = array_of(weight), array_of(bias)
    channels, taps = matrix.shape[1], int(np.prod(matrix.shape[2:]))
    if channels * taps <= MAX_DEPTH or attributes.get("groups", 1) > 1 or taps > MAX_DEPTH:
        return None
    most, total = MAX_DEPTH // taps, None
    for part in np.array_split(np.arange(channels), -(-channels // most)):
        some = builder.emit("Channels", x, index=part.tolist())
        made = builder.emit(node.op_type, some, matrix[:, part], shift, **attributes)
        shift = np.zeros_like(shift)
        total = made if total is None else builder.emit("Add", total, made)
    return total
