"""The table of canonical operations: one row holds all that an operation is.

A row gives the formal inputs, the attributes, the shape rule, one line of documentation and the
ONNX function body, so that ONNX Runtime executes and Netron opens any canonical model.  All
tensors are float32, but for the image, which may be of any numeric type, and task numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from .experts import EXPERT_OPS
from .heads import HEAD_OPS
from .maps import MAP_OPS
from .movement import MOVEMENT_OPS
from .norms import NORM_OPS
from .op import (
    DOMAIN,
    DOMAIN_VERSION,
    FLOAT,
    INT,
    INTS,
    STRING,
    Attributes,
    Op,
    Shape,
    function_of,
    last,
    require,
    tokens,
)
from .outputs import OUTPUT_OPS
from .products import PRODUCT_OPS
from .unary import UNARY, Bodies


def _patch_embed(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    image, weight, bias = shapes
    require(len(image) == 4, f"the image has shape {image}, but [N, C, H, W] is needed")
    require(len(weight) == 2, f"the weight has shape {weight}, but [D, C*ph*pw] is needed")
    patch = tuple(attributes["patch"])
    require(len(patch) == 2 and min(patch) > 0, f"patch {patch} is not two positive sizes")
    channels, height, width = (int(size) for size in image[1:])
    rows, columns = height // patch[0], width // patch[1]
    require(
        (rows * patch[0], columns * patch[1]) == (height, width),
        f"patches of {patch} do not tile an image of {(height, width)}",
    )
    wanted = channels * patch[0] * patch[1]
    require(weight[1] == wanted, f"the weight has {weight[1]} columns, a patch {wanted} pixels")
    require(bias == weight[:1], f"the bias has shape {bias}, the weight {weight[0]} rows")
    return image[0], rows * columns, weight[0]


def _place_tokens(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, prefix, position = shapes
    batch, count, dim = tokens(x)
    require(len(prefix) == 2 and prefix[1] == dim, f"the prefix has shape {prefix}, not [n, {dim}]")
    total = int(prefix[0]) + count
    require(position == (total, dim), f"the position has shape {position}, not {(total, dim)}")
    return batch, total, dim


def _layer_norm(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, gamma, beta = shapes
    require(gamma == beta == (last(x),), f"gamma {gamma} and beta {beta} do not fit x {x}")
    require(attributes["epsilon"] > 0, f"epsilon {attributes['epsilon']} is not positive")
    return x


def _linear(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, weight, bias = shapes
    require(len(weight) == 2, f"the weight has shape {weight}, but [out, in] is needed")
    require(weight[1] == last(x), f"the weight has {weight[1]} columns, its input {x[-1]}")
    require(bias == weight[:1], f"the bias has shape {bias}, the weight {weight[0]} rows")
    return (*x[:-1], weight[0])


def _activation(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    kind = attributes["kind"]
    require(kind in UNARY, f"kind {kind!r} is none of {', '.join(UNARY)}")
    return shapes[0]


def _add(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    require(shapes[0] == shapes[1], f"the shapes {shapes[0]} and {shapes[1]} differ")
    return shapes[0]


def _select_token(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = tokens(shapes[0])
    index = attributes["index"]
    require(0 <= index < count, f"index {index} is outside the {count} tokens")
    return batch, dim


def _mean_pool(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    batch, count, dim = tokens(shapes[0])
    start, end = attributes["start"], attributes["end"]
    require(0 <= start < end <= count, f"range {start}:{end} is outside the {count} tokens")
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
        name="Activation",
        doc="one of the unary functions, elementwise",
        inputs=("x",),
        attributes={"kind": STRING},
        shape=_activation,
        body=Bodies(),
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
OPS: dict[str, Op] = {
    row.name: row
    for row in (
        *_ROWS, *HEAD_OPS, *EXPERT_OPS, *MOVEMENT_OPS, *MAP_OPS, *NORM_OPS, *PRODUCT_OPS,
        *OUTPUT_OPS,
    )
}  # fmt: skip


def attach_functions(model: ir.Model) -> None:
    """Give ``model`` the function body of every canonical operation that it uses, in place."""
    for node in model.graph:
        key = (DOMAIN, node.op_type, node.overload)
        if node.domain == DOMAIN and key not in model.functions:
            model.functions[key] = function_of(OPS[node.op_type], node.overload)
    model.graph.opset_imports[DOMAIN] = DOMAIN_VERSION
