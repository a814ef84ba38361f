"""Means over tokens in the plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.channelwise import ChannelwiseOp
from vitrify.ops.linear.plan import Stored
from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, result_of


@dataclass(frozen=True, kw_only=True)
class PoolOp(ChannelwiseOp):
    """Mean over rows of an int8 tensor, to an int16 tensor."""

    start: int
    stop: int


def plan_mean_pool(planner: Planner, node: ir.Node) -> Stored:
    """``MeanPool`` of the int8 form."""
    attributes = attributes_of(node)
    x = planner.of(node, 0).int8(planner, node).tensor
    name = result_of(node)
    planner.versions[name] = 0
    planner.append(PoolOp(
        name=name, out=name, value=name, x=x, start=attributes["start"], stop=attributes["end"]
    ))
    return Stored(Operand(name, name, 0))
