"""What stands between the weights of attention and its values goes to its operands.

``scores``, ``weights`` and ``values`` are tensors ``[N, T, heads * keys]`` and ``[N, T, D]``: the
products around a softmax are attention again, once nothing is left between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, array_of, attributes_of

from .layout import sizes

Emit = Callable[..., ir.Value]

#: Factors that differ by less, relatively, are rounded differently.
_SAME = 1e-5


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node behind ``value`` if it is of such a type and nothing else reads its result."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in op_types or value is None:
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """The inputs that are there."""
    return [value for value in node.inputs if value is not None]


# Between the heads -------------------------------------------------------------------------
@dataclass
class _Talk:
    """Matrices over the heads, ``[to, from]``, before a softmax of ``scores`` and behind it."""

    scores: ir.Node
    before: np.ndarray
    behind: np.ndarray
    #: What is added to the weights of each head.
    bias: np.ndarray


def _talk(value: ir.Value | None, heads: int) -> _Talk | None:
    """How ``value``, the weights of ``heads``, comes from scores; ``None`` if it is nothing known.

    Matrices over the heads take each row's heads as rows of their own.
    """
    before, behind, bias = np.eye(heads), np.eye(heads), np.zeros(heads)
    apart, seen = False, False
    while True:
        node = producer(value, "Fold", "Unfold", "Mix", "Softmax", "Product")
        if node is None:
            return None
        attributes, value = attributes_of(node), node.inputs[0]
        match node.op_type:
            case "Fold" if attributes["rows"] == heads and not apart:
                apart = True
            case "Unfold" if attributes["parts"] == heads and apart:
                apart = False
            case "Softmax" if attributes["groups"] == (1 if apart else heads) and not seen:
                if attributes["axis"] != "channels":
                    return None
                seen = True
            case "Mix" if apart and attributes["heads"] == 1:
                _, matrix, shift = inputs_of(node)
                own = array_of(matrix).astype(np.float64)
                if own.shape != (1, heads, heads):
                    return None
                if seen:
                    # softmax does not see what is added to all scores of a row
                    before = before @ own[0]
                else:
                    bias = bias + behind @ array_of(shift)
                    behind = behind @ own[0]
            case "Product" if seen and not apart:
                fits = attributes["heads"] == heads and attributes["layout"] == "nt"
                fits = fits and attributes["groups"] == 1
                return _Talk(node, before, behind, bias) if fits else None
            case _:
                return None


def _mapped(again: Emit, node: ir.Node, value: ir.Value, matrix: np.ndarray) -> ir.Value:
    """``matrix [out, in]`` times the channels of ``value``, by its own weights if it has some."""
    made = value.producer()
    weight, bias = matrix, np.zeros(len(matrix))
    if made is not None and made.op_type == "Linear":
        value, *own = inputs_of(made)
        weight, bias = (matrix @ array_of(each).astype(np.float64) for each in own)
    return again("Linear", node, made or node, value, weight, bias)


def _spread(matrix: np.ndarray, width: int) -> np.ndarray:
    """From channels ``heads * width`` to those of all heads, each with its own factors."""
    factors = np.repeat(matrix, width, axis=1)
    return np.concatenate([np.diag(row) for row in factors])


def attention_of(node: ir.Node, again: Emit) -> ir.Value | None:
    """A product of softmax weights and values is attention."""
    return _attention(node, node.inputs[0], again)


def _attention(node: ir.Node, weights: ir.Value | None, again: Emit) -> ir.Value | None:
    """The product ``node`` of ``weights`` and its values as attention, or ``None``.

    Where matrices over the heads are, every head has all channels of the queries, scaled by its row
    of the matrix before the softmax; and all of the values, of which the matrix behind it makes
    those of a head.
    """
    attributes, v = attributes_of(node), inputs_of(node)[1]
    heads, layout = attributes["heads"], attributes["layout"]
    if layout != "nn" or attributes["scale"] != 1.0 or attributes["groups"] != 1:
        return None
    talk = _talk(weights, heads)
    if talk is None:
        return None
    (q, k), values = inputs_of(talk.scores), v
    apart, size = np.ones((heads, heads)), sizes(v)[1] // heads
    before, behind = (
        not np.array_equal(matrix, np.eye(heads)) for matrix in (talk.before, talk.behind)
    )
    if before:
        width = sizes(q)[1] // heads
        q = _mapped(again, node, q, _spread(talk.before, width))
        k = _mapped(again, node, k, _spread(apart, width))
    if behind:
        values = _mapped(again, node, v, _spread(apart, size))
    made = again(
        "CrossAttention", node, talk.scores, q, k, values, np.zeros((1, 1, 1, 1)), heads=heads,
        groups=1, scale=attributes_of(talk.scores)["scale"], kind="softmax",
    )
    if behind:
        together = _spread(talk.behind.T, size).T
        made = again("Linear", node, node, made, together, np.zeros(heads * size))
    if not talk.bias.any():
        return made
    matrix = np.broadcast_to(talk.bias[:, None, None], (heads, sizes(q)[0], sizes(v)[0]))
    return again("Add", node, node, made, _over_tokens(again, node, v, matrix))


def _over_tokens(
    again: Emit, node: ir.Node, values: ir.Value, matrix: np.ndarray
) -> ir.Value:
    """``matrix [heads, rows, tokens]`` times the values of each head."""
    heads, rows, _ = matrix.shape
    return again("Mix", node, node, values, matrix, np.zeros(rows), heads=heads, groups=1)


# Affine weights ----------------------------------------------------------------------------
def sum_of_weights(node: ir.Node, again: Emit) -> ir.Value | None:
    """A factor that a function makes of sums of softmax weights is a constant.

    ``node`` multiplies by it.
    """
    x, function = inputs_of(node)[0], producer(node.inputs[1], "Activation")
    summed = None if function is None else producer(function.inputs[0], "Linear")
    sums = None if summed is None else _constant_sums(summed)
    if function is None or sums is None:
        return None
    factor = UNARY[attributes_of(function)["kind"]].reference(sums)
    scale = np.repeat(factor, sizes(x)[1] // factor.shape[1], axis=1)
    shift = np.zeros((1, 1))
    affine = producer(x, "Affine")
    if affine is not None:
        x, own, offset = inputs_of(affine)
        scale, shift = scale * array_of(own), scale * array_of(offset)
    if np.ptp(scale, axis=0).max() <= _SAME * np.abs(scale).max():
        scale = scale.mean(axis=0, keepdims=True)
    return again("Affine", node, affine or node, x, scale, shift)


def _constant_sums(node: ir.Node) -> np.ndarray | None:
    """``[rows, out]`` of a linear layer that sums softmax weights, scaled and shifted or not."""
    x, weight, bias = inputs_of(node)
    rows, width = sizes(x)
    made, scale, shift = x.producer(), np.ones((1, 1)), np.zeros((1, 1))
    if made is not None and made.op_type == "Affine":
        x, *affine = inputs_of(made)
        scale, shift = (array_of(each).astype(np.float64) for each in affine)
        made = x.producer()
    if made is None or made.op_type != "Softmax":
        return None
    attributes = attributes_of(made)
    matrix = array_of(weight).astype(np.float64)
    scale, shift = (np.broadcast_to(part, (rows, width)) for part in (scale, shift))
    groups = attributes["groups"]
    each = (matrix[:, None] * scale).reshape(len(matrix), rows, groups, -1)
    uneven = np.ptp(each, axis=3).max() > _SAME * np.abs(each).max()
    if attributes["axis"] != "channels" or uneven:
        return None
    return each[..., 0].sum(axis=2).T + shift @ matrix.T + array_of(bias)


def product_of_affine(node: ir.Node, again: Emit) -> ir.Value | None:
    """Weights scaled by heads and shifted: attention scaled, and a constant matrix over tokens."""
    attributes, affine = attributes_of(node), producer(node.inputs[0], "Affine")
    heads = attributes["heads"]
    if affine is None or attributes["layout"] != "nn" or attributes["groups"] != 1:
        return None
    weights, *parameters = inputs_of(affine)
    values = inputs_of(node)[1]
    rows, width = sizes(weights)
    scale, shift = (
        np.broadcast_to(array_of(each), (rows, width)).reshape(rows, heads, -1)
        for each in parameters
    )
    if np.ptp(scale, axis=(0, 2)).max() > 0:
        return None
    made = _attention(node, weights, again)
    if made is None:
        made = again("Product", node, affine, weights, values, **attributes)
    factor = np.repeat(scale[0, :, 0], sizes(values)[1] // heads)[None]
    made = again("Affine", node, node, made, factor, np.zeros((1, 1)))
    if not shift.any():
        return made
    matrix = attributes["scale"] * shift.transpose(1, 0, 2)
    return again("Add", node, node, made, _over_tokens(again, node, values, matrix))


def product_of_scaled(node: ir.Node, again: Emit) -> ir.Value | None:
    """A factor for each row and head of the weights is one of the result."""
    attributes, scaled = attributes_of(node), producer(node.inputs[0], "Multiply")
    if scaled is None or attributes["layout"] != "nn" or attributes["groups"] != 1:
        return None
    weights, factor = inputs_of(scaled)
    if sizes(factor)[1] != attributes["heads"]:
        return None
    made = again("Product", node, scaled, weights, inputs_of(node)[1], **attributes)
    return again("Multiply", node, node, made, factor)


def product_of_weighted(node: ir.Node, again: Emit) -> ir.Value | None:
    """The sum over tokens of what a softmax over them weighs is a product of two activations."""
    weighted = producer(node.inputs[0], "Multiply")
    _, matrix, bias = inputs_of(node)
    ones = array_of(matrix)
    if weighted is None or ones.shape[:2] != (1, 1) or (ones != 1).any() or array_of(bias).any():
        return None
    x, weights = inputs_of(weighted)
    softmax, groups = producer(weights, "Softmax"), attributes_of(node)["groups"]
    if softmax is None or attributes_of(softmax) != {"axis": "tokens", "groups": groups}:
        return None
    heads = sizes(weights)[1]
    return again(
        "Product", node, weighted, weights, x, heads=heads, groups=groups, scale=1.0, layout="tn"
    )
