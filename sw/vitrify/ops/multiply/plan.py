"""Products of two tensors in the plan: both are int8 tensors that the reader multiplies."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import shape_of
from vitrify.ops.linear.plan import LinearValue, Stored
from vitrify.quant.plan import Operand, unsupported
from vitrify.quant.planner import Planner, result_of


def plan_multiply(planner: Planner, node: ir.Node) -> Stored:
    """``Multiply``: factors that nobody else reads, so that they can lie side by side."""
    x, y = (shape_of(value) for value in node.inputs if value is not None)
    if x != y:
        raise unsupported(node, f"its factors have the shapes {x} and {y}, which differ")
    name = result_of(node)
    low, high = (_factor(planner, node, index, f"{name}.{index}") for index in range(2))
    return Stored(Operand(low, name, times=high))


def _factor(planner: Planner, node: ir.Node, index: int, form: str) -> str:
    value = planner.of(node, index)
    if not isinstance(value, LinearValue):
        value = Stored(value.stream(planner, node))
    return value.own_int8(planner, node, form).tensor
