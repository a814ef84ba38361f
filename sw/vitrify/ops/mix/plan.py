"""Constant matrices over tokens in the plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.channelwise import ChannelwiseOp
from vitrify.ops.linear.plan import Stored, int8_in_groups
from vitrify.quant.plan import Array, Operand
from vitrify.quant.planner import Planner, parameter, result_of


@dataclass(frozen=True, kw_only=True)
class MixOp(ChannelwiseOp):
    """``matrix [heads, out, in]`` times the rows of an int8 tensor, to an int16 tensor.

    Each of ``groups`` runs of rows is multiplied by itself; ``bias`` has one value a result row.
    """

    matrix: Array
    bias: Array
    groups: int


def plan_mix(planner: Planner, node: ir.Node) -> Stored:
    """``Mix`` of the int8 form."""
    matrix, name = parameter(node, 1), result_of(node)
    x = int8_in_groups(planner, node, 0, len(matrix))
    planner.groups[name] = len(matrix)
    planner.versions[name] = 0
    planner.append(MixOp(
        name=node.name or name, out=name, value=name, x=x, matrix=matrix,
        bias=parameter(node, 2), groups=attributes_of(node)["groups"],
    ))
    return Stored(Operand(name, name, 0))
