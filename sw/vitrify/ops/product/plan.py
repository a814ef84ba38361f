"""Products of two activations in the plan, and softmax around them."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.attention.plan import AttentionOp, Weights
from vitrify.ops.linear.plan import LinearValue, Stored, int8_in_groups
from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, result_of

from .quotient import divided
from .softmax import SoftmaxValue
from .values import ProductValue


def plan_product(planner: Planner, node: ir.Node) -> LinearValue:
    """``Product``: delayed, unless one of its operands is a softmax."""
    attributes, name = attributes_of(node), result_of(node)
    attended = None if divided(node) else _attention(planner, node)
    if attended is not None:
        return attended
    for index in range(2):
        value = planner.of(node, index)
        if isinstance(value, SoftmaxValue):
            made = value.product(planner, node, index)
            if made is not None:
                return made
    scales = (float(attributes["scale"]),) * attributes["heads"]
    return ProductValue(node, scales, name)


def _attention(planner: Planner, node: ir.Node) -> LinearValue | None:
    """A product of a function of scores and values: no more of the scores than buffers hold."""
    scores, attributes, name = planner.of(node, 0), attributes_of(node), result_of(node)
    if not isinstance(scores, ProductValue) or attributes["scale"] != 1.0:
        return None
    own = attributes_of(scores.node)
    same = all(own[key] == attributes[key] for key in ("heads", "groups"))
    argument = scores.argument
    if not same or argument is None or (own["layout"], attributes["layout"]) != ("nt", "nn"):
        return None
    heads = planner.groups[name] = attributes["heads"]
    q, k = (int8_in_groups(planner, scores.node, i, heads) for i in range(2))
    planner.append(AttentionOp(
        name=node.name or name, out=name, value=name, q=q, k=k,
        v=int8_in_groups(planner, node, 1, heads), heads=heads, scale=scores.scales[0],
        row_groups=attributes["groups"], weights=Weights(argument, scores.kind, scores.shift),
    ))
    return Stored(Operand(name, name))


def plan_softmax(_planner: Planner, node: ir.Node) -> SoftmaxValue:
    """``Softmax``: delayed until a product reads it."""
    return SoftmaxValue(node)
