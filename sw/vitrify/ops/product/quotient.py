"""Products divided by sums of rows, of the same streamed rows: linear attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, attributes_of, shape_of
from vitrify.ops.linear.plan import Stored, int8_in_groups
from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, result_of

from .op import Divides, ProductOp
from .values import multiplications

#: What is added to a sum before the division may be so much of one at most: it is left out.
_LEAST = 0.02
#: Where a function is compared with one over its argument.
_POINTS = np.array([1.0, 3.0, 10.0, 100.0])


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node behind a value, if it is of this type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def quotient(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The product of a ``Multiply``, and the one whose result it is divided by; else ``None``."""
    product, function = _maker(node.inputs[0], "Product"), _maker(node.inputs[1], "Activation")
    total = None if function is None else _maker(function.inputs[0], "Product")
    if product is None or function is None or total is None:
        return None
    if product.inputs[0] is not total.inputs[0] or attributes_of(product) != attributes_of(total):
        return None
    attributes = attributes_of(product)
    one = shape_of(total.outputs[0])[-1] == attributes["heads"]
    if attributes["layout"] != "nn" or attributes["scale"] != 1.0 or not one:
        return None
    # weights of attention are never a tensor
    x = product.inputs[0]
    while x is not None and (behind := x.producer()) is not None:
        if behind.op_type in ("Product", "Softmax"):
            return None
        x = behind.inputs[0] if behind.op_type in ("Activation", "Affine") else None
    inverse = UNARY[attributes_of(function)["kind"]].reference(_POINTS)
    return (product, total) if (np.abs(inverse * _POINTS - 1) < _LEAST).all() else None


def plan_quotient(planner: Planner, node: ir.Node, product: ir.Node, total: ir.Node) -> Stored:
    """``product`` over ``total``: sums of int16, then what they divide."""
    attributes, name = attributes_of(product), result_of(node)
    heads, groups = attributes["heads"], attributes["groups"]
    x, y = (int8_in_groups(planner, product, i, heads) for i in range(2))
    sums = planner.unique(f"{name}.sums")
    common = {"x": x, "heads": heads, "groups": groups, "rows_y": False, "scales": (1.0,) * heads}
    planner.append(ProductOp(
        **common, name=total.name or sums, out=sums, value="",
        y=int8_in_groups(planner, total, 1, heads), stacked=frozenset({sums}), width=1,
        macs=multiplications(total), divides=Divides(y, result_of(total), name),
    ), "sums")
    planner.groups[name] = heads
    planner.append(ProductOp(
        **common, name=product.name or name, out=name, value=name, y=y,
        stacked=frozenset({sums}), width=int(shape_of(node.outputs[0])[-1]),
        macs=multiplications(product), divisor=sums,
    ))
    return Stored(Operand(name, name))
