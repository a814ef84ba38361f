"""Canonical operations that multiply or combine activations, and attention of any kind.

Rows may fall into ``groups`` of equal size (windows) and channels into ``heads``; both are
consecutive.  A group and head of x is a matrix X, and Z the matrix of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from .norms import BY_CHANNELS, BY_TOKENS, grouped
from .op import FLOAT, INT, INTS, STRING, Attributes, Op, Shape, require, tokens
from .unary import UNARY


def _blocks(shape: Shape, attributes: Attributes) -> tuple[int, int]:
    """Rows and columns of the matrix of one group and head."""
    _, count, dim = tokens(shape)
    groups, heads = attributes["groups"], attributes["heads"]
    require(groups > 0 and count % groups == 0, f"{groups} groups do not divide {count} tokens")
    require(heads > 0 and int(dim) % heads == 0, f"{heads} heads do not divide {dim} channels")
    return count // groups, int(dim) // heads


def _made(shape: Shape, attributes: Attributes, rows: int, columns: int) -> Shape:
    return shape[0], rows * attributes["groups"], columns * attributes["heads"]


def _product(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    layout = attributes["layout"]
    require(layout in _PRODUCTS, f"layout {layout!r} is none of {', '.join(_PRODUCTS)}")
    (m, k), (inner, n) = (_blocks(shape, attributes) for shape in shapes)
    m, k = (k, m) if layout[0] == "t" else (m, k)
    inner, n = (n, inner) if layout[1] == "t" else (inner, n)
    require(k == inner, f"matrices of {(m, k)} and {(inner, n)} cannot be multiplied")
    return _made(shapes[0], attributes, m, n)


def _attention(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q, k, v, bias = shapes
    kind = attributes["kind"]
    require(kind in _WEIGHTS, f"kind {kind!r} is none of {', '.join(_WEIGHTS)}")
    (rows, depth), (keys, also), (values, width) = (
        _blocks(shape, attributes) for shape in (q, k, v)
    )
    require(depth == also, f"the heads of q have {depth} channels, those of k {also}")
    require(keys == values, f"there are {keys} keys and {values} values")
    wanted = (attributes["groups"], attributes["heads"], rows, keys)
    fits = len(bias) == 4 and all(b in (1, w) for b, w in zip(bias, wanted, strict=True))
    require(fits, f"the bias has shape {bias}, which does not fit {wanted}")
    return _made(q, attributes, rows, width)


def _relative_attention(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q, k, v, *terms = shapes
    made = _attention([q, k, v, (1, 1, 1, 1)], {**attributes, "kind": "softmax"})
    (rows, _), (keys, _) = (_blocks(shape, attributes) for shape in (q, k))
    for name, term in zip("xy", terms, strict=True):
        (count, width), index = _blocks(term, attributes), attributes[f"{name}_keys"]
        require(count == rows, f"there are {rows} queries, and {name} has {count} rows")
        fits = len(index) == keys and min(index) >= 0 and max(index) < width
        require(fits, f"{name}_keys do not give each of {keys} keys one of {width} channels")
    return made


def _mix(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, matrix, bias = shapes
    rows, width = _blocks(x, attributes)
    require(len(matrix) == 3, f"the matrix has shape {matrix}, but [heads, out, in] is needed")
    heads, out, inner = (int(size) for size in matrix)
    require(heads == attributes["heads"], f"there are {heads} matrices, not one for each head")
    require(inner == rows, f"the matrix takes {inner} rows, a group has {rows}")
    require(bias == (out,), f"the bias has shape {bias}, the matrix {out} rows")
    return _made(x, attributes, out, width)


def _multiply(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, y = shapes
    (_, count, dim), (_, rows, width) = tokens(x), tokens(y)
    fits = x[0] == y[0] and rows in (1, count) and int(dim) % int(width) == 0
    require(fits, f"y {y} does not fit x {x}")
    return x


def _maximum(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    require(shapes[0] == shapes[1], f"the shapes {shapes[0]} and {shapes[1]} differ")
    return shapes[0]


def _softmax(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    grouped(shapes[0], attributes)
    return shapes[0]


def _rotary(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, cos, sin = shapes
    _, count, dim = tokens(x)
    require(cos == sin == (count, dim), f"cos {cos} and sin {sin} do not fit x {x}")
    partner = sorted(attributes["partner"])
    require(partner == list(range(int(dim))), "the partners are no permutation of the channels")
    return x


# Names of several letters: the bodies of unary functions use the short ones.
_SIZES = """
    head_number = Constant <value_int: int = @heads> ()
    group_number = Constant <value_int: int = @groups> ()
    zero_1 = Constant <value_ints = [0]> ()
    rest_1 = Constant <value_ints = [-1]> ()
    keep = Constant <value_ints = [0, 0, 0]> ()
    hs = Unsqueeze(head_number, zero_1)
    gs = Unsqueeze(group_number, zero_1)
    by_head = Concat <axis = 0> (keep, hs, rest_1)
"""


def _matrices(name: str, out: str, transposed: bool = False) -> str:
    """ONNX text from ``name`` to its matrices [N, groups, heads, rows, columns]."""
    order = "[0, 1, 3, 4, 2]" if transposed else "[0, 1, 3, 2, 4]"
    return f"""
    {name}_width = Shape <start = 2> ({name})
    {name}_form = Concat <axis = 0> (zero_1, gs, rest_1, {name}_width)
    {name}_4 = Reshape({name}, {name}_form)
    {name}_5 = Reshape({name}_4, by_head)
    {out} = Transpose <perm = {order}> ({name}_5)
    """


def _joined(name: str, out: str = "y") -> str:
    """ONNX text from matrices to rows."""
    return f"""
    {name}_t = Transpose <perm = [0, 1, 3, 2, 4]> ({name})
    side = Concat <axis = 0> (keep, rest_1)
    {name}_4 = Reshape({name}_t, side)
    {name}_width = Shape <start = 3> ({name}_4)
    {name}_form = Concat <axis = 0> (zero_1, rest_1, {name}_width)
    {out} = Reshape({name}_4, {name}_form)
    """


_SCALE = "factor = Constant <value_float: float = @scale> ()\n"
_PRODUCTS = {
    layout: _SIZES + _SCALE
    + _matrices("x", "left", layout[0] == "t") + _matrices("y", "right", layout[1] == "t")
    + "both = MatMul(left, right)  made = Mul(both, factor)" + _joined("made", "z")
    for layout in ("nn", "nt", "tn")
}  # fmt: skip
#: From the scores, ``x``, to the weights, ``y``.
_WEIGHTS = {"softmax": "y = Softmax <axis = -1> (x)"} | {k: row.body for k, row in UNARY.items()}


def _attend(kind: str) -> str:
    # the bodies of functions call their argument x and their result y
    return (
        _SIZES + _SCALE + _matrices("q", "queries") + _matrices("k", "keys", True)
        + _matrices("v", "values")
        + "products = MatMul(queries, keys)  scores = Mul(products, factor)\n"
        + f"x = Add(scores, bias)\n{_WEIGHTS[kind]}\n"
        + "made = MatMul(y, values)" + _joined("made", "attended")
    )  # fmt: skip


def _by_key(name: str) -> str:
    """ONNX text from ``name`` to what it adds to the scores of each query and key."""
    return _matrices(name, f"{name}_parts") + f"""
    {name}_index = Constant <value_ints: ints = @{name}_keys> ()
    {name}_added = Gather <axis = -1> ({name}_parts, {name}_index)
    """


_RELATIVE = (
    _SIZES + _SCALE + _matrices("q", "queries") + _matrices("k", "keys", True)
    + _matrices("v", "values") + _by_key("x") + _by_key("y")
    + "products = MatMul(queries, keys)  scaled = Mul(products, factor)\n"
    + "some = Add(scaled, x_added)  scores = Add(some, y_added)\n"
    + "weights = Softmax <axis = -1> (scores)\n"
    + "made = MatMul(weights, values)" + _joined("made", "attended")
)  # fmt: skip
_MIX = _SIZES + _matrices("x", "rows") + """
    one = Constant <value_ints = [1]> ()
    mixed = MatMul(matrix, rows)
    column = Unsqueeze(bias, one)
    made = Add(mixed, column)
""" + _joined("made")
_MULTIPLY = """
    zero = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    axis = Constant <value_ints = [3]> ()
    width = Shape <start = 2> (y)
    form = Concat <axis = 0> (zero, width, rest)
    x4 = Reshape(x, form)
    y4 = Unsqueeze(y, axis)
    p = Mul(x4, y4)
    size = Shape(x)
    z = Reshape(p, size)
"""
_SOFTMAX = """
    p = Softmax <axis = {axis}> (parts)
    size = Shape(x)
    y = Reshape(p, size)
"""
_ROTARY = """
    i = Constant <value_ints: ints = @partner> ()
    turned = Gather <axis = 2> (x, i)
    a = Mul(x, cos)
    b = Mul(turned, sin)
    y = Add(a, b)
"""
_HEADED = {"heads": INT, "groups": INT}

PRODUCT_OPS = (
    Op(
        name="Product",
        doc=(
            "Z = scale * X @ Y in each group and head, X transposed for layout tn, Y for nt; "
            "rows of Z as rows, columns as channels"
        ),
        inputs=("x", "y"),
        attributes={**_HEADED, "scale": FLOAT, "layout": STRING},
        shape=_product,
        body=_PRODUCTS,
        overload="layout",
    ),
    Op(
        name="CrossAttention",
        doc=(
            "f(scale * Q @ K.T + bias) @ V in each group and head, f by its kind; "
            "q, k and v may differ in rows, and v in the width of its heads"
        ),
        inputs=("q", "k", "v", "bias"),
        parameters=("bias",),
        attributes={**_HEADED, "scale": FLOAT, "kind": STRING},
        shape=_attention,
        body={kind: _attend(kind) for kind in _WEIGHTS},
        overload="kind",
        result="attended",
    ),
    Op(
        name="RelativeAttention",
        doc=(
            "softmax(scale * Q @ K.T + X[:, x_keys] + Y[:, y_keys]) @ V in each group and head: "
            "X and Y have a row for each query and a channel for each line (column) of keys"
        ),
        inputs=("q", "k", "v", "x", "y"),
        attributes={**_HEADED, "scale": FLOAT, "x_keys": INTS, "y_keys": INTS},
        shape=_relative_attention,
        body=_RELATIVE,
        result="attended",
    ),
    Op(
        name="Mix",
        doc="Z = matrix of the head @ X + bias of the row: a constant matrix over tokens",
        inputs=("x", "matrix", "bias"),
        parameters=("matrix", "bias"),
        attributes=_HEADED,
        shape=_mix,
        body=_MIX,
    ),
    Op(
        name="Multiply",
        doc="x * y; y may have one row for all, and one channel for every few of x's",
        inputs=("x", "y"),
        attributes={},
        shape=_multiply,
        body=_MULTIPLY,
    ),
    Op(
        name="Maximum",
        doc="the larger of x and y",
        inputs=("x", "y"),
        attributes={},
        shape=_maximum,
        body="z = Max(x, y)",
    ),
    Op(
        name="Softmax",
        doc="softmax in each group of channels of a row, or (axis tokens) of rows of a channel",
        inputs=("x",),
        attributes={"axis": STRING, "groups": INT},
        shape=_softmax,
        body={
            "channels": BY_CHANNELS + _SOFTMAX.format(axis=3),
            "tokens": BY_TOKENS + _SOFTMAX.format(axis=2),
        },
        overload="axis",
    ),
    Op(
        name="Rotary",
        doc="x * cos + x[..., partner] * sin: pairs of channels turned by an angle for each row",
        inputs=("x", "cos", "sin"),
        parameters=("cos", "sin"),
        attributes={"partner": INTS},
        shape=_rotary,
        body=_ROTARY,
    ),
)
