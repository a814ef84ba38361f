"""Means over tokens in the plan."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Stored
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import ByteNeeds, Operand, Plan, PlanOp
from vitrify.quant.planner import Planner, result_of


@dataclass(frozen=True, kw_only=True)
class PoolOp(PlanOp):
    """Mean over rows of an int8 tensor, to an int16 tensor."""

    x: str
    start: int
    stop: int

    def reads(self) -> list[tuple[str, int]]:
        return [(self.x, 0)]

    def channels(self, plan: Plan) -> int:
        return plan.channels(self.x)

    def requests(self, plan: Plan) -> list[Request]:
        return [self.result()]

    def needs(self, tensor: str) -> ByteNeeds:
        """One multiplier for all channels, and no bias: the mean becomes a stream."""
        return ByteNeeds(one_step=True, zero=True, symmetric=True)


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
