"""Canonical operations of attention: all heads, or those that a router chooses for each token.

The mixtures of heads are those of Jin et al., "MoH: Multi-Head Attention as Mixture-of-Head
Attention" (arXiv 2410.11842): every head attends, and its result for a token is multiplied by a
weight before the output projection.  A head that the token did not choose has the weight zero, so
neither its query nor its result is needed there; keys and values always are.
"""

from __future__ import annotations

from collections.abc import Sequence

from .experts import CHOICE
from .op import FLOAT, INT, Attributes, Op, Shape, require, tokens


def _attention(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q, k, v = shapes
    _, _, dim = tokens(q)
    require(q == k == v, f"q {q}, k {k} and v {v} differ")
    heads = attributes["heads"]
    require(heads > 0 and int(dim) % heads == 0, f"{heads} heads do not divide {dim} channels")
    return q


def _routed(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q = _attention(shapes[:3], attributes)
    logits, heads, k = shapes[3], attributes["heads"], attributes["k"]
    require(len(logits) == 3 and logits[:2] == q[:2], f"the logits {logits} do not fit q {q}")
    routed = int(logits[2])
    require(routed <= heads, f"{routed} logits are more than {heads} heads")
    require(1 <= k <= routed, f"k {k} is not 1 to {routed}")
    require(attributes["normalize"] in (0, 1), f"normalize {attributes['normalize']} is not 0 or 1")
    return q


def _balanced(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    q = _routed(shapes[:4], attributes)
    logits, shared, balance = shapes[3:]
    wanted = (*q[:2], attributes["heads"] - int(logits[2]))
    require(shared == wanted, f"the shared logits have shape {shared}, not {wanted}")
    require(balance == (*q[:2], 2), f"the balance has shape {balance}, not {(*q[:2], 2)}")
    return q


# To ``heads_last``, [N, T, heads, D / heads].
_HEADS = """
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
    heads_last = Transpose <perm = [0, 2, 1, 3]> (o)
    back = Concat <axis = 0> (keep, rest)
"""
# From ``parts``, the weights [N, T, heads].
_WEIGHED = """
    each = Unsqueeze(parts, rest)
    weighed = Mul(heads_last, each)
    y = Reshape(weighed, back)
"""
_ROUTED = """
    lead = Shape <start = 0, end = 2> (logits)
    routed = Shape <start = 2> (logits)
    others = Sub(hs, routed)
    others_form = Concat <axis = 0> (lead, others)
    one_weight = Constant <value_float = 1.0> ()
    ones = Expand(one_weight, others_form)
    parts = Concat <axis = -1> (ones, weight)
"""
_BALANCED = """
    stages = Softmax <axis = -1> (balance)
    first_stage, second_stage = Split <axis = -1, num_outputs = 2> (stages)
    shared_weight = Softmax <axis = -1> (shared)
    shared_part = Mul(shared_weight, first_stage)
    routed_part = Mul(weight, second_stage)
    parts = Concat <axis = -1> (shared_part, routed_part)
"""
_ROUTING = {"heads": INT, "scale": FLOAT, "k": INT, "normalize": INT}

HEAD_OPS = (
    Op(
        name="Attention",
        doc="softmax(scale * q @ k.T) @ v in each of the heads, heads side by side in the channels",
        inputs=("q", "k", "v"),
        attributes={"heads": INT, "scale": FLOAT},
        shape=_attention,
        body=_HEADS + "y = Reshape(heads_last, back)",
    ),
    Op(
        name="RoutedHeads",
        doc=(
            "Attention whose last heads, as many as there are logits, are multiplied by weights: "
            "softmax of the logits for a token's k largest (of equals the lower number), over all "
            "of them or (normalize = 1) over the chosen, else zero; the heads before have weight 1"
        ),
        inputs=("q", "k", "v", "logits"),
        attributes=_ROUTING,
        shape=_routed,
        body=_HEADS + CHOICE + _ROUTED + _WEIGHED,
    ),
    Op(
        name="BalancedHeads",
        doc=(
            "Attention whose heads are multiplied by weights: those of RoutedHeads times "
            "softmax(balance)[1] for the last heads, softmax(shared) times softmax(balance)[0] "
            "for the heads before them"
        ),
        inputs=("q", "k", "v", "logits", "shared", "balance"),
        attributes=_ROUTING,
        shape=_balanced,
        body=_HEADS + CHOICE + _BALANCED + _WEIGHED,
    ),
)
