"""Single tokens in the plan: rows of an operand, no op of their own."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.quant.planner import Planner, Value


def plan_select_token(planner: Planner, node: ir.Node) -> Value:
    """``SelectToken``: whoever reads the tensor reads one row of it."""
    return planner.of(node, 0).pick(planner, node, (attributes_of(node)["index"], 1))
