"""Products of two tensors in the plan: both are int8 tensors that the reader multiplies."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import shape_of
from vitrify.ops.linear.plan import LinearValue, Stored
from vitrify.ops.product.quotient import plan_quotient, quotient
from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, result_of
from vitrify.quant.tensors import Rows

#: Of tokens ``[N, T, D]``.
_RANK = 3


def plan_multiply(planner: Planner, node: ir.Node) -> Stored:
    """``Multiply``: factors that nobody else reads, so that they can lie side by side.

    A factor with one row for all makes as many equal ones.
    """
    parts = quotient(node)
    if parts is not None:
        return plan_quotient(planner, node, *parts)
    x, y = (shape_of(value) for value in node.inputs if value is not None)
    name, count = result_of(node), int(x[1]) if len(x) == _RANK else 1
    rows = Rows((0,) * count) if x != y else None
    low = _factor(planner, node, 0, f"{name}.0", None)
    return Stored(Operand(low, name, times=_factor(planner, node, 1, f"{name}.1", rows)))


def _factor(
    planner: Planner, node: ir.Node, index: int, form: str, rows: Rows | None
) -> str:
    """An int8 tensor of a ``form`` of its own."""
    value = planner.of(node, index)
    if not isinstance(value, LinearValue):
        value = Stored(value.stream(planner, node))
    return value.own_int8(planner, node, form, rows).tensor
