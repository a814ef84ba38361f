"""The table of canonical operations: one row holds all that an operation is.

A row gives the formal inputs, the attributes, the shape rule, one line of documentation and the
ONNX function body, so that ONNX Runtime executes and Netron opens any canonical model.  Shapes are
tuples of integers and names of symbolic dimensions; ``N`` is the number of images, ``T`` of tokens,
``D`` of channels.  All tensors are float32, but for the image, which may be of any numeric type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.parser
import onnx_ir as ir

from .unary import UNARY

#: Domain of the canonical operations, and its version.
DOMAIN = "vitrify"
DOMAIN_VERSION = 1
#: The ONNX operator set that the function bodies are written in.
OPSET = 18

Dim = int | str
Shape = tuple[Dim, ...]
Attributes = Mapping[str, Any]
ShapeRule = Callable[[Sequence[Shape], Attributes], Shape]

INT, INTS = ir.AttributeType.INT, ir.AttributeType.INTS
FLOAT, STRING = ir.AttributeType.FLOAT, ir.AttributeType.STRING


class ShapeError(ValueError):
    """The shapes or attributes of a node contradict its row; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One canonical operation.

    Parameters
    ----------
    parameters:
        Those of ``inputs`` that must be initializers.
    body:
        ONNX text from the inputs to ``y``; a mapping when the operation has one body per value of
        its ``overload`` attribute (an ONNX function overload of the same name).
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    attributes: Mapping[str, ir.AttributeType]
    shape: ShapeRule
    body: str | Mapping[str, str]
    overload: str | None = None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)


def _last(shape: Shape) -> Dim:
    _require(len(shape) >= 2, f"its input has shape {shape}, but rank 2 or 3 is needed")
    return shape[-1]


def _tokens(shape: Shape) -> tuple[Dim, int, Dim]:
    _require(len(shape) == 3, f"its input has shape {shape}, but [N, T, D] is needed")
    _require(isinstance(shape[1], int), f"the number of tokens {shape[1]!r} is not a constant")
    return shape[0], int(shape[1]), shape[2]


def _patch_embed(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    image, weight, bias = shapes
    _require(len(image) == 4, f"the image has shape {image}, but [N, C, H, W] is needed")
    _require(len(weight) == 2, f"the weight has shape {weight}, but [D, C*ph*pw] is needed")
    patch = tuple(attributes["patch"])
    _require(len(patch) == 2 and min(patch) > 0, f"patch {patch} is not two positive sizes")
    channels, height, width = (int(size) for size in image[1:])
    rows, columns = height // patch[0], width // patch[1]
    _require(
        (rows * patch[0], columns * patch[1]) == (height, width),
        f"patches of {patch} do not tile an image of {(height, width)}",
    )
    wanted = channels * patch[0] * patch[1]
    _require(weight[1] == wanted, f"the weight has {weight[1]} columns, a patch {wanted} pixels")
    _require(bias == weight[:1], f"the bias has shape {bias}, the weight {weight[0]} rows")
    return image[0], rows * columns, weight[0]


def _place_tokens(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, prefix, position = shapes
    batch, count, dim = _tokens(x)
    _require(
        len(prefix) == 2 and prefix[1] == dim, f"the prefix has shape {prefix}, not [n, {dim}]"
    )
    total = int(prefix[0]) + count
    _require(position == (total, dim), f"the position has shape {position}, not {(total, dim)}")
    return batch, total, dim


def _layer_norm(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, gamma, beta = shapes
    _require(gamma == beta == (_last(x),), f"gamma {gamma} and beta {beta} do not fit x {x}")
    _require(attributes["epsilon"] > 0, f"epsilon {attributes['epsilon']} is not positive")
    return x


def _linear(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, weight, bias = shapes
    _require(len(weight) == 2, f"the weight has shape {weight}, but [out, in] is needed")
    _require(weight[1] == _last(x), f"the weight has {weight[1]} columns, its input {x[-1]}")
    _require(bias == weight[:1], f"the bias has shape {bias}, the weight {weight[0]} rows")
    return (*x[:-1], weight[0])


def _attention(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q, k, v = shapes
    _, _, dim = _tokens(q)
    _require(q == k == v, f"q {q}, k {k} and v {v} differ")
    heads = attributes["heads"]
    _require(heads > 0 and int(dim) % heads == 0, f"{heads} heads do not divide {dim} channels")
    return q


def _activation(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    kind = attributes["kind"]
    _require(kind in UNARY, f"kind {kind!r} is none of {', '.join(UNARY)}")
    return shapes[0]


def _add(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    _require(shapes[0] == shapes[1], f"the shapes {shapes[0]} and {shapes[1]} differ")
    return shapes[0]


def _select_token(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = _tokens(shapes[0])
    index = attributes["index"]
    _require(0 <= index < count, f"index {index} is outside the {count} tokens")
    return batch, dim


def _mean_pool(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = _tokens(shapes[0])
    start, end = attributes["start"], attributes["end"]
    _require(0 <= start < end <= count, f"range {start}:{end} is outside the {count} tokens")
    return batch, dim


_PATCH_EMBED = """
    p = Constant <value_ints: ints = @patch> ()
    keep = Constant <value_ints = [0, -1]> ()
    flat = Constant <value_ints = [0, 0, -1]> ()
    form = Concat <axis = 0> (keep, p)
    kernel = Reshape(weight, form)
    pixels = CastLike(image, weight)
    grid = Conv <strides: ints = @patch> (pixels, kernel, bias)
    columns = Reshape(grid, flat)
    y = Transpose <perm = [0, 2, 1]> (columns)
"""
_TOKENS = """
    one = Constant <value_ints = [1]> ()
    zero = Constant <value_ints = [0]> ()
    batch = Shape <start = 0, end = 1> (x)
    size = Shape (prefix)
    form = Concat <axis = 0> (batch, size)
    lead = Unsqueeze(prefix, zero)
    leads = Expand(lead, form)
    row = Concat <axis = 1> (leads, x)
    y = Add(row, position)
"""
_ATTENTION = """
    h = Constant <value_int: int = @heads> ()
    s = Constant <value_float: float = @scale> ()
    axis = Constant <value_ints = [0]> ()
    keep = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    hs = Unsqueeze(h, axis)
    form = Concat <axis = 0> (keep, hs, rest)
    q4 = Reshape(q, form)
    k4 = Reshape(k, form)
    v4 = Reshape(v, form)
    qt = Transpose <perm = [0, 2, 1, 3]> (q4)
    kt = Transpose <perm = [0, 2, 3, 1]> (k4)
    vt = Transpose <perm = [0, 2, 1, 3]> (v4)
    products = MatMul(qt, kt)
    scores = Mul(products, s)
    p = Softmax <axis = -1> (scores)
    o = MatMul(p, vt)
    ot = Transpose <perm = [0, 2, 1, 3]> (o)
    back = Concat <axis = 0> (keep, rest)
    y = Reshape(ot, back)
"""
_MEAN_POOL = """
    axis = Constant <value_ints = [1]> ()
    first = Constant <value_int: int = @start> ()
    last = Constant <value_int: int = @end> ()
    zero = Constant <value_ints = [0]> ()
    a = Unsqueeze(first, zero)
    b = Unsqueeze(last, zero)
    part = Slice(x, a, b, axis)
    y = ReduceMean <keepdims = 0> (part, axis)
"""

_ROWS = (
    Op(
        name="PatchEmbed",
        doc="cut the image into patches (row-major) and project each; columns ordered (c, ph, pw)",
        inputs=("image", "weight", "bias"),
        parameters=("weight", "bias"),
        attributes={"patch": INTS},
        shape=_patch_embed,
        body=_PATCH_EMBED,
    ),
    Op(
        name="Tokens",
        doc="put n >= 0 constant tokens before the others, then add the position",
        inputs=("x", "prefix", "position"),
        parameters=("prefix", "position"),
        attributes={},
        shape=_place_tokens,
        body=_TOKENS,
    ),
    Op(
        name="LayerNorm",
        doc="(x - mean) / sqrt(variance + epsilon) * gamma + beta, over the last axis",
        inputs=("x", "gamma", "beta"),
        parameters=("gamma", "beta"),
        attributes={"epsilon": FLOAT},
        shape=_layer_norm,
        body="y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, gamma, beta)",
    ),
    Op(
        name="Linear",
        doc="x @ weight.T + bias, over the last axis",
        inputs=("x", "weight", "bias"),
        parameters=("weight", "bias"),
        attributes={},
        shape=_linear,
        body="w = Transpose <perm = [1, 0]> (weight)  p = MatMul(x, w)  y = Add(p, bias)",
    ),
    Op(
        name="Attention",
        doc="softmax(scale * q @ k.T) @ v in each of the heads, heads side by side in the channels",
        inputs=("q", "k", "v"),
        attributes={"heads": INT, "scale": FLOAT},
        shape=_attention,
        body=_ATTENTION,
    ),
    Op(
        name="Activation",
        doc="one of the unary functions, elementwise",
        inputs=("x",),
        attributes={"kind": STRING},
        shape=_activation,
        body={kind: row.body for kind, row in UNARY.items()},
        overload="kind",
    ),
    Op(
        name="Add",
        doc="x + y, shapes equal",
        inputs=("x", "y"),
        attributes={},
        shape=_add,
        # the formal names are x and y, so the result needs another one
        body="z = Add(x, y)",
    ),
    Op(
        name="SelectToken",
        doc="the token at the index",
        inputs=("x",),
        attributes={"index": INT},
        shape=_select_token,
        body="i = Constant <value_int: int = @index> ()  y = Gather <axis = 1> (x, i)",
    ),
    Op(
        name="MeanPool",
        doc="the mean of the tokens start to end (exclusive)",
        inputs=("x",),
        attributes={"start": INT, "end": INT},
        shape=_mean_pool,
        body=_MEAN_POOL,
    ),
)

#: Every canonical operation by name.
OPS: dict[str, Op] = {row.name: row for row in _ROWS}


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Plain Python values of a node's attributes."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def function_of(op: Op, overload: str = "") -> ir.Function:
    """Build the ONNX function of ``op`` (of one overload of it)."""
    body = op.body if isinstance(op.body, str) else op.body[overload]
    result = "z" if "y" in op.inputs else "y"
    formals = f"<{', '.join(op.attributes)}>" if op.attributes else ""
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'
        f"{op.name} {formals} ({', '.join(op.inputs)}) => ({result}) {{\n{body}\n}}"
    )
    proto = onnx.parser.parse_function(text)
    proto.overload = overload
    proto.doc_string = op.doc
    return ir.from_proto(proto)


def attach_functions(model: ir.Model) -> None:
    """Give ``model`` the function body of every canonical operation that it uses, in place."""
    for node in model.graph:
        key = (DOMAIN, node.op_type, node.overload)
        if node.domain == DOMAIN and key not in model.functions:
            model.functions[key] = function_of(OPS[node.op_type], node.overload)
    model.graph.opset_imports[DOMAIN] = DOMAIN_VERSION
