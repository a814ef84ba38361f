"""Canonical operations whose weights are chosen at run time: by a task number or by a router."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .op import INT, STRING, Attributes, Op, Shape, last, require, tokens
from .unary import UNARY, Bodies


def _task_linear(shapes: Sequence[Shape], _attributes: Attributes) -> Shape:
    x, weight, bias, task = shapes
    require(len(weight) == 3, f"the weight has shape {weight}, but [S, out, in] is needed")
    require(weight[2] == last(x), f"the weight has {weight[2]} columns, its input {x[-1]}")
    require(bias == weight[:2], f"the bias has shape {bias}, not {weight[:2]}")
    fits = task in ((), (1,), x[:1])
    require(fits, f"the task has shape {task}, but [N], [1] or a scalar is needed")
    return (*x[:-1], weight[1])


def _experts(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, logits, w1, b1, w2, b2 = shapes
    batch, count, dim = tokens(x)
    require(len(w1) == 3, f"w1 has shape {w1}, but [E, H, D] is needed")
    experts, hidden = w1[:2]
    require(w1[2] == dim, f"w1 has {w1[2]} columns, its input {dim}")
    require(b1 == (experts, hidden), f"b1 has shape {b1}, not {(experts, hidden)}")
    require(w2 == (experts, dim, hidden), f"w2 has shape {w2}, not {(experts, dim, hidden)}")
    require(b2 == (experts, dim), f"b2 has shape {b2}, not {(experts, dim)}")
    wanted = (batch, count, experts)
    require(logits == wanted, f"the logits have shape {logits}, not {wanted}")
    k, kind = attributes["k"], attributes["kind"]
    require(1 <= k <= min(4, int(experts)), f"k {k} is not 1 to {min(4, int(experts))}")
    require(attributes["normalize"] in (0, 1), f"normalize {attributes['normalize']} is not 0 or 1")
    require(kind in UNARY, f"kind {kind!r} is none of {', '.join(UNARY)}")
    return x


# Task numbers of any shape become a list; a list of one serves every picture.
_TASK_LINEAR = """
    every = Constant <value_ints = [-1]> ()
    whole = Constant <value_ints = [0, -1]> ()
    middle = Constant <value_ints = [1]> ()
    number = Reshape(task, every)
    chosen = Gather <axis = 0> (weight, number)
    turned = Transpose <perm = [0, 2, 1]> (chosen)
    channels = Shape <start = 2> (weight)
    form = Concat <axis = 0> (whole, channels)
    rows = Reshape(x, form)
    products = MatMul(rows, turned)
    added = Gather <axis = 0> (bias, number)
    spread = Unsqueeze(added, middle)
    sums = Add(products, spread)
    lead = Shape <start = 0, end = -1> (x)
    columns = Shape <start = 1, end = 2> (weight)
    back = Concat <axis = 0> (lead, columns)
    y = Reshape(sums, back)
"""
#: From the logits, k and normalize to ``weight``, zero where nothing was chosen.
CHOICE = """
    axis_0 = Constant <value_ints = [0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_last = Constant <value_ints = [-1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    off_on = Constant <value_floats = [0.0, 1.0]> ()
    k_scalar = Constant <value_int: int = @k> ()
    k_list = Unsqueeze(k_scalar, axis_0)
    best, chosen = TopK <axis = -1> (logits, k_list)
    depth = Shape <start = 2> (logits)
    marks = OneHot <axis = -1> (chosen, depth, off_on)
    mask = ReduceSum <keepdims = 0> (marks, axis_2)
    shares = Softmax <axis = -1> (logits)
    picked = Mul(shares, mask)
    total = ReduceSum <keepdims = 1> (picked, axis_last)
    whole = Div(picked, total)
    normalize_int = Constant <value_int: int = @normalize> ()
    normalize_bool = Cast <to = 9> (normalize_int)
    weight = Where(normalize_bool, whole, picked)
"""
# Every expert computes every row here.
_EXPERTS = (
    CHOICE
    + """
    weight_rows = Transpose <perm = [0, 2, 1]> (weight)
    scale = Unsqueeze(weight_rows, axis_last)
    rows = Unsqueeze(x, axis_1)
    up = Transpose <perm = [0, 2, 1]> (w1)
    up_products = MatMul(rows, up)
    up_bias = Unsqueeze(b1, axis_1)
    hidden = Add(up_products, up_bias)
    {activation}
    down = Transpose <perm = [0, 2, 1]> (w2)
    down_products = MatMul(active, down)
    down_bias = Unsqueeze(b2, axis_1)
    results = Add(down_products, down_bias)
    scaled = Mul(results, scale)
    y = ReduceSum <keepdims = 0> (scaled, axis_1)
"""
)


def _with_activation(text: str) -> str:
    """The body with an activation from the tensor ``hidden`` to ``active``."""
    # the unary bodies name their operand x and their result y, and use short names between
    named = re.sub(r"\by\b", "active", re.sub(r"\bx\b", "hidden", text))
    return _EXPERTS.format(activation=named)


EXPERT_OPS = (
    Op(
        name="TaskLinear",
        doc="x @ weight[task].T + bias[task], over the last axis; each picture has its task",
        inputs=("x", "weight", "bias", "task"),
        parameters=("weight", "bias"),
        tasks=("task",),
        attributes={},
        shape=_task_linear,
        body=_TASK_LINEAR,
    ),
    Op(
        name="Experts",
        doc=(
            "sum over the k largest logits of a token (of equals the lower number) of "
            "weight * (w2 @ kind(w1 @ x + b1) + b2); weight: softmax of the logits, over all "
            "experts or (normalize = 1) over the chosen"
        ),
        inputs=("x", "logits", "w1", "b1", "w2", "b2"),
        parameters=("w1", "b1", "w2", "b2"),
        attributes={"k": INT, "normalize": INT, "kind": STRING},
        shape=_experts,
        body=Bodies(_with_activation),
        overload="kind",
    ),
)
