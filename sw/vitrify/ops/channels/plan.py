"""Channels in the plan: what is done to them goes into the weights in front, or into a copy's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Affine, LinearValue, Stored, affine_of
from vitrify.ops.product.values import ProductValue
from vitrify.quant.planner import Planner, parameter, result_of


def plan_affine(planner: Planner, node: ir.Node) -> LinearValue:
    """``Affine``, for all tokens the same: delayed like the linear map that it becomes part of.

    A product of activations takes a scale for each head, and a shift of all.
    """
    scale, shift = parameter(node, 1), parameter(node, 2)
    value = planner.of(node, 0)
    if isinstance(value, ProductValue):
        made = value.transformed(scale[0], shift[0], result_of(node))
        if made is not None:
            return made
    x = affine_of(planner, node, 0)
    channels = x.weight.shape[-2]
    factor, offset = (np.broadcast_to(each[0], (channels,)) for each in (scale, shift))
    return replace(
        x, weight=x.weight * factor[:, None], bias=x.bias * factor + offset, rows=None,
        value=result_of(node),
    )


def plan_channels(planner: Planner, node: ir.Node) -> Affine:
    """``Channels``: only these columns of the linear map, zeros where the index is -1."""
    index = np.asarray(attributes_of(node)["index"])
    x = affine_of(planner, node, 0)
    if x.window is not None and x.window.groups > 1:
        x = Stored(x.int8(planner, node)).affine(planner, node)
    kept = index >= 0
    return replace(
        x, weight=x.weight[..., index, :] * kept[:, None], bias=x.bias[..., index] * kept,
        rows=None, value=result_of(node),
    )
