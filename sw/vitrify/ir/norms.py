"""Canonical normalisations besides LayerNorm, and constant scales and shifts."""

from __future__ import annotations

from collections.abc import Sequence

from .op import FLOAT, INT, STRING, Attributes, Op, Shape, last, require, tokens

#: What the axis attribute may name: the channels of a row, or the rows that a channel is in.
AXES = ("channels", "tokens")


def grouped(shape: Shape, attributes: Attributes) -> None:
    """Check the attributes ``axis`` and ``groups``: equal groups of consecutive entries."""
    axis, groups = attributes.get("axis", "channels"), attributes["groups"]
    require(axis in AXES, f"axis {axis!r} is not channels or tokens")
    size = int(last(shape)) if axis == "channels" else tokens(shape)[1]
    require(groups > 0 and size % groups == 0, f"{groups} groups do not divide {size} {axis}")
    require(len(shape) == 3, f"its input has shape {shape}, but [N, T, D] is needed")


def _norm(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x = shapes[0]
    grouped(x, attributes)
    for parameter in shapes[1:]:
        require(parameter == (last(x),), f"a parameter {parameter} does not fit x {x}")
    require(attributes["epsilon"] >= 0, f"epsilon {attributes['epsilon']} is negative")
    return x


def _affine(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, scale, shift = shapes
    _, count, dim = tokens(x)
    for name, given in (("scale", scale), ("shift", shift)):
        fits = len(given) == 2 and given[0] in (1, count) and given[1] in (1, dim)
        require(fits, f"the {name} has shape {given}, not [1 or {count}, 1 or {dim}]")
    return x


# To ``parts``, whose axis 3 (channels) or 2 (tokens) is one group.
BY_CHANNELS = """
    g = Constant <value_int: int = @groups> ()
    zero = Constant <value_ints = [0]> ()
    keep = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    gs = Unsqueeze(g, zero)
    form = Concat <axis = 0> (keep, gs, rest)
    parts = Reshape(x, form)
    axis = Constant <value_ints = [3]> ()
"""
BY_TOKENS = """
    g = Constant <value_int: int = @groups> ()
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    gs = Unsqueeze(g, zero)
    width = Shape <start = 2> (x)
    form = Concat <axis = 0> (zero, gs, rest, width)
    parts = Reshape(x, form)
    axis = Constant <value_ints = [2]> ()
"""
_EPSILON = "e = Constant <value_float: float = @epsilon> ()\n"
_RMS = _EPSILON + """
    square = Mul(parts, parts)
    mean = ReduceMean(square, axis)
    safe = Add(mean, e)
    deviation = Sqrt(safe)
    normal = Div(parts, deviation)
    size = Shape(x)
    back = Reshape(normal, size)
    y = Mul(back, gamma)
"""
_CENTRED = """
    mean = ReduceMean(parts, axis)
    centred = Sub(parts, mean)
    square = Mul(centred, centred)
    variance = ReduceMean(square, axis)
    safe = Add(variance, e)
    deviation = Sqrt(safe)
    normal = Div(centred, deviation)
    size = Shape(x)
    back = Reshape(normal, size)
    scaled = Mul(back, gamma)
    y = Add(scaled, beta)
"""

NORM_OPS = (
    Op(
        name="RMSNorm",
        doc=(
            "x / sqrt(mean square + epsilon) * gamma in each group of channels of a row, "
            "or (axis tokens) in each group of rows of a channel"
        ),
        inputs=("x", "gamma"),
        parameters=("gamma",),
        attributes={"axis": STRING, "groups": INT, "epsilon": FLOAT},
        shape=_norm,
        body={"channels": BY_CHANNELS + _RMS, "tokens": BY_TOKENS + _RMS},
        overload="axis",
    ),
    Op(
        name="HeadNorm",
        doc=(
            "LayerNorm in each group of channels of a row (every head apart), "
            "or (axis tokens) in each group of rows of a channel"
        ),
        inputs=("x", "gamma", "beta"),
        parameters=("gamma", "beta"),
        attributes={"axis": STRING, "groups": INT, "epsilon": FLOAT},
        shape=_norm,
        body={
            "channels": BY_CHANNELS + _EPSILON + _CENTRED,
            "tokens": BY_TOKENS + _EPSILON + _CENTRED,
        },
        overload="axis",
    ),
    Op(
        name="GroupNorm",
        doc="x - mean over the deviation, of all rows and the channels of a group; gamma, beta",
        inputs=("x", "gamma", "beta"),
        parameters=("gamma", "beta"),
        attributes={"groups": INT, "epsilon": FLOAT},
        shape=_norm,
        body=BY_CHANNELS.replace("[3]", "[1, 3]") + _EPSILON + _CENTRED,
    ),
    Op(
        name="Affine",
        doc="x * scale + shift, each a number for every row, channel or element",
        inputs=("x", "scale", "shift"),
        parameters=("scale", "shift"),
        attributes={},
        shape=_affine,
        body="scaled = Mul(x, scale)  y = Add(scaled, shift)",
    ),
)
