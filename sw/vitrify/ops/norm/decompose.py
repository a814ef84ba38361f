"""Normalisations of anything but whole rows, by other operations.

The core gathers statistics of rows.  Other sums are those of a linear layer over the channels and a
constant matrix over the tokens; a table gives one over the deviation, by which is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.arch.formats import MAX_DEPTH
from vitrify.ir import Builder, array_of, attributes_of, shape_of
from vitrify.quant.decompose import inputs

_SQUARE = "y = Mul(x, x)"


def decompose_rms_norm(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``RMSNorm`` of a part of a row, or of rows unless a product contracts over them."""
    attributes = attributes_of(node)
    if attributes["axis"] == "channels" and attributes["groups"] == 1:
        return None
    if attributes["axis"] == "tokens" and _transposed(node):
        return None
    return _scaled(builder, node, inputs(node)[0], _over(node))


def decompose_head_norm(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``HeadNorm``: without the mean, like an ``RMSNorm``; of all channels a ``LayerNorm``."""
    attributes, (x, gamma, beta) = attributes_of(node), inputs(node)
    if attributes["axis"] == "channels" and attributes["groups"] == 1:
        return builder.emit(
            "LayerNorm", x, array_of(gamma), array_of(beta), epsilon=attributes["epsilon"]
        )
    over = _over(node)
    if over.rows == 1:
        # Rows of their own have statistics of 16 bits; a table of a mean square has 8.
        groups, dim = over.channel_groups, int(shape_of(x)[2])
        apart = builder.emit("Unfold", x, parts=groups)
        ones, zeros = np.ones(dim // groups), np.zeros(dim // groups)
        normal = builder.emit("LayerNorm", apart, ones, zeros, epsilon=attributes["epsilon"])
        joined = builder.emit("Fold", normal, rows=groups)
        return builder.emit("Affine", joined, array_of(gamma)[None], array_of(beta)[None])
    return _scaled(builder, node, _centred(builder, x, over), over)


def decompose_group_norm(builder: Builder, node: ir.Node) -> ir.Value:
    """``GroupNorm``: mean and deviation of groups of channels of all rows."""
    x = inputs(node)[0]
    over = _Over(int(shape_of(x)[1]), 1, attributes_of(node)["groups"])
    return _scaled(builder, node, _centred(builder, x, over), over)


@dataclass(frozen=True)
class _Over:
    """What has statistics of its own: ``rows`` of each row group, channels of each group."""

    rows: int
    row_groups: int
    channel_groups: int

    def averages(self, dim: int) -> np.ndarray:
        """A matrix ``[groups, dim]`` that averages the channels of each group."""
        each = dim // self.channel_groups
        return np.repeat(np.eye(self.channel_groups), each, axis=1) / each

    def mean(self, builder: Builder, x: ir.Value, factor: float = 1.0) -> ir.Value:
        """``factor`` times the mean of all that belongs together ``[N, row groups, groups]``."""
        dim = int(shape_of(x)[2])
        if self.channel_groups < dim:
            weight = factor * self.averages(dim)
            x, factor = builder.emit("Linear", x, weight, np.zeros(len(weight))), 1.0
        rows = self.rows
        while rows > 1:
            # As many at once as the accumulators can hold.
            part = next(n for n in range(min(rows, MAX_DEPTH), 0, -1) if rows % n == 0)
            x = builder.emit(
                "Mix", x, np.full((1, 1, part), factor / part), np.zeros(1), heads=1,
                groups=int(shape_of(x)[1]) // part,
            )
            rows, factor = rows // part, 1.0
        return x

    def spread(self, builder: Builder, x: ir.Value) -> ir.Value:
        """``x [N, row groups, ...]`` with as many rows as there were."""
        index = np.repeat(np.arange(self.row_groups), self.rows)
        return builder.emit("Rows", x, index=index.tolist()) if self.rows > 1 else x


def _transposed(node: ir.Node) -> bool:
    """Whether only products read it that sum over its row groups, and take its factor into theirs.

    They can if all channels have the same one and it is positive: multipliers have no sign.
    """
    gamma, groups, made = array_of(inputs(node)[1]), attributes_of(node)["groups"], node.outputs[0]
    summed = all(
        user.op_type == "Product"
        and (attributes_of(user)["layout"], attributes_of(user)["groups"]) == ("tn", groups)
        for user, _ in made.uses()
    )
    one = gamma[0] > 0 and bool((gamma == gamma[0]).all())
    return summed and not made.is_graph_output() and one


def _over(node: ir.Node) -> _Over:
    """What the groups of an ``RMSNorm`` or ``HeadNorm`` are."""
    attributes, (_, count, dim) = attributes_of(node), shape_of(inputs(node)[0])
    groups = attributes["groups"]
    if attributes["axis"] == "channels":
        return _Over(1, int(count), groups)
    return _Over(int(count) // groups, groups, int(dim))


def _centred(builder: Builder, x: ir.Value, over: _Over) -> ir.Value:
    """A copy of ``x`` less the means."""
    less = over.spread(builder, over.mean(builder, x, -1.0))
    width = int(shape_of(x)[2]) // over.channel_groups
    if width > 1:
        index = np.repeat(np.arange(over.channel_groups), width)
        less = builder.emit("Channels", less, index=index.tolist())
    one = np.ones((1, 1))
    return builder.emit("Add", builder.emit("Affine", x, one, 0 * one), less)


def _scaled(builder: Builder, node: ir.Node, x: ir.Value, over: _Over) -> ir.Value:
    """``x`` over the root of its mean square, times gamma, plus beta."""
    epsilon = float(attributes_of(node)["epsilon"])
    square = over.mean(builder, builder.emit("Activation", x, kind=_SQUARE))
    root = (
        f"e = Constant <value_float = {epsilon!r}> ()  s = Add(x, e)  r = Sqrt(s)  "
        "y = Reciprocal(r)"
    )
    scale = builder.emit("Activation", square, kind=root)
    if over.row_groups > 1:
        scale = over.spread(builder, scale)
    gamma, *beta = (array_of(value)[None] for value in inputs(node)[1:])
    shift = beta[0] if beta else np.zeros((1, 1))
    return builder.emit("Affine", builder.emit("Multiply", x, scale), gamma, shift)
