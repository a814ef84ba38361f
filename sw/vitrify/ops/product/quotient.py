"""Products divided by sums of rows, of the same streamed rows: linear attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, Builder, array_of, attributes_of, shape_of
from vitrify.ops.linear.plan import Stored, int8_in_groups
from vitrify.quant.decompose import inputs
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


def _source(x: ir.Value | None) -> str:
    """The operation that functions and scales are of."""
    while x is not None and (behind := x.producer()) is not None:
        if behind.op_type not in ("Activation", "Affine"):
            return behind.op_type
        x = behind.inputs[0]
    return ""


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
    if _source(product.inputs[0]) == "Softmax":
        return None  # divided by its sums already
    inverse = UNARY[attributes_of(function)["kind"]].reference(_POINTS)
    return (product, total) if (np.abs(inverse * _POINTS - 1) < _LEAST).all() else None


def divided(node: ir.Node) -> bool:
    """Whether a product is part of a quotient, which computes it."""
    users = [use.node for use in node.outputs[0].uses()]
    for function in list(users):
        users += [use.node for use in function.outputs[0].uses()]
    found = [quotient(user) for user in users if user.op_type == "Multiply"]
    return any(parts is not None and node in parts for parts in found)


def sums_as_product(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Multiply`` of a product by a function of sums of its left factor's rows, by a product.

    Weights of attention that are divided by their sum are summed up by a linear layer of ones in
    the place of each head.  Only those that may all be zero gain by it: of large reciprocals bytes
    hold too little, and of others more than a quotient of 16 bits.
    """
    product, function = _maker(node.inputs[0], "Product"), _maker(node.inputs[1], "Activation")
    linear = None if function is None else _maker(function.inputs[0], "Linear")
    if product is None or function is None or linear is None:
        return None
    weights = _maker(product.inputs[0], "Activation")
    if weights is None or _source(weights.outputs[0]) != "Product":
        return None
    if np.nan_to_num(UNARY[attributes_of(weights)["kind"]].reference(-_POINTS)).any():
        return None
    (x, y), attributes = inputs(product), attributes_of(product)
    heads, matrix, bias = attributes["heads"], *map(array_of, inputs(linear)[1:])
    ones = np.kron(np.eye(heads), np.ones((1, int(shape_of(x)[-1]) // heads)))
    same = linear.inputs[0] is x and matrix.shape == ones.shape and (matrix == ones).all()
    if not same or bias.any() or attributes["layout"] != "nn" or attributes["scale"] != 1.0:
        return None
    rows = np.ones((int(shape_of(y)[1]), heads), np.float32)
    total = builder.emit("Product", x, builder.emit("ConstantRows", y, rows), **attributes)
    inverse = builder.emit("Activation", total, **attributes_of(function))
    return builder.emit("Multiply", product.outputs[0], inverse)


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
