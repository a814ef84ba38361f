"""Products of two activations in the plan, and softmax around them."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import LinearValue
from vitrify.quant.planner import Planner, result_of

from .softmax import SoftmaxValue
from .values import ProductValue


def plan_product(planner: Planner, node: ir.Node) -> LinearValue:
    """``Product``: delayed, unless one of its operands is a softmax."""
    attributes, name = attributes_of(node), result_of(node)
    for index in range(2):
        value = planner.of(node, index)
        if isinstance(value, SoftmaxValue):
            made = value.product(planner, node, index)
            if made is not None:
                return made
    scales = (float(attributes["scale"]),) * attributes["heads"]
    return ProductValue(node, scales, name, before=name)


def plan_softmax(_planner: Planner, node: ir.Node) -> SoftmaxValue:
    """``Softmax``: delayed until a product reads it."""
    return SoftmaxValue(node)
