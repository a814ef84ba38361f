"""Canonical operations that move rows and channels of token tensors, or put constants there."""

from __future__ import annotations

from collections.abc import Sequence

from .op import INT, INTS, Attributes, Op, Shape, last, require, tokens

#: In an index: no row, no channel, but zeros.
NOTHING = -1


def _index(attributes: Attributes, size: int, what: str) -> int:
    index = attributes["index"]
    require(len(index) > 0, "its index is empty")
    low, high = min(index), max(index)
    require(low >= NOTHING and high < size, f"index {low}..{high} is outside the {size} {what}")
    return len(index)


def _rows(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = tokens(shapes[0])
    return batch, _index(attributes, count, "tokens"), dim


def _channels(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    return (*shapes[0][:-1], _index(attributes, int(last(shapes[0])), "channels"))


def _fold(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = tokens(shapes[0])
    rows = attributes["rows"]
    require(rows > 0 and count % rows == 0, f"{rows} rows do not divide {count} tokens")
    return batch, count // rows, int(dim) * rows


def _unfold(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, parts = shapes[0], attributes["parts"]
    dim, count = int(last(x)), int(x[1]) if len(x) == 3 else 1
    require(parts > 0 and dim % parts == 0, f"{parts} parts do not divide {dim} channels")
    return x[0], count * parts, dim // parts


def _transpose(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    batch, count, dim = tokens(shapes[0])
    return batch, dim, count


def _concat_rows(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    (batch, first, dim), (other, second, also) = (tokens(shape) for shape in shapes)
    require((batch, dim) == (other, also), f"the shapes {shapes[0]} and {shapes[1]} do not fit")
    return batch, first + second, dim


def _concat_channels(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, y = shapes
    require(x[:-1] == y[:-1], f"the shapes {x} and {y} do not fit")
    return (*x[:-1], int(last(x)) + int(last(y)))


def _constant(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    value = shapes[1]
    require(len(value) == 2, f"the value has shape {value}, but [T, D] is needed")
    return (shapes[0][0], *value)


# One more row (channel) of zeros behind all the others is what the index -1 takes.
_ROWS = """
    i = Constant <value_ints: ints = @index> ()
    behind = Constant <value_ints = [0, 0, 0, 0, 1, 0]> ()
    wide = Pad(x, behind)
    y = Gather <axis = 1> (wide, i)
"""
_CHANNELS = """
    i = Constant <value_ints: ints = @index> ()
    last = Constant <value_ints = [-1]> ()
    behind = Constant <value_ints = [0, 1]> ()
    wide = Pad(x, behind, , last)
    y = Gather <axis = -1> (wide, i)
"""
_FOLD = """
    r = Constant <value_int: int = @rows> ()
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    rs = Unsqueeze(r, zero)
    width = Shape <start = 2> (x)
    wide = Mul(width, rs)
    form = Concat <axis = 0> (zero, rest, wide)
    y = Reshape(x, form)
"""
_UNFOLD = """
    p = Constant <value_int: int = @parts> ()
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    ps = Unsqueeze(p, zero)
    width = Shape <start = -1> (x)
    narrow = Div(width, ps)
    form = Concat <axis = 0> (zero, rest, narrow)
    y = Reshape(x, form)
"""
_CONSTANT = """
    zero = Constant <value_ints = [0]> ()
    batch = Shape <start = 0, end = 1> (x)
    size = Shape (value)
    form = Concat <axis = 0> (batch, size)
    lead = Unsqueeze(value, zero)
    y = Expand(lead, form)
"""

MOVEMENT_OPS = (
    Op(
        name="Rows",
        doc="y[:, i] = x[:, index[i]], zeros where the index is -1",
        inputs=("x",),
        attributes={"index": INTS},
        shape=_rows,
        body=_ROWS,
    ),
    Op(
        name="Channels",
        doc="y[..., i] = x[..., index[i]], zeros where the index is -1",
        inputs=("x",),
        attributes={"index": INTS},
        shape=_channels,
        body=_CHANNELS,
    ),
    Op(
        name="Fold",
        doc="[N, T, D] to [N, T / rows, rows * D]: consecutive rows side by side",
        inputs=("x",),
        attributes={"rows": INT},
        shape=_fold,
        body=_FOLD,
    ),
    Op(
        name="Unfold",
        doc="[N, T, D] or [N, D] to [N, T * parts, D / parts]: the parts of a row as rows",
        inputs=("x",),
        attributes={"parts": INT},
        shape=_unfold,
        body=_UNFOLD,
    ),
    Op(
        name="Transpose",
        doc="[N, T, D] to [N, D, T]",
        inputs=("x",),
        attributes={},
        shape=_transpose,
        body="y = Transpose <perm = [0, 2, 1]> (x)",
    ),
    Op(
        name="ConcatRows",
        doc="the rows of x, then those of y",
        inputs=("x", "y"),
        attributes={},
        shape=_concat_rows,
        body="z = Concat <axis = 1> (x, y)",
    ),
    Op(
        name="ConcatChannels",
        doc="the channels of x, then those of y, row by row",
        inputs=("x", "y"),
        attributes={},
        shape=_concat_channels,
        body="z = Concat <axis = -1> (x, y)",
    ),
    Op(
        name="ConstantRows",
        doc="the value, [T, D], for as many images as x has",
        inputs=("x", "value"),
        parameters=("value",),
        attributes={},
        shape=_constant,
        body=_CONSTANT,
    ),
)
