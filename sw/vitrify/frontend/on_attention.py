"""Attention: from the two matrix products and the softmax, in whatever layout, to one node."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.ir import ShapeError, shape_of

from .fold import fold
from .on_elementwise import add_views
from .on_gate import known, leave
from .on_softmax import softmax_of
from .product import attend as attend_blocks
from .rows import per_channel
from .trace import Tracer, attribute, constant, handles
from .values import CONSTANT, Broken, Const, Scores, Traced, Unfit, View

_PLAIN = "export plain scaled-dot-product attention"


@dataclass
class Heads:
    """One operand of attention, [batch x heads in any order, T, d].

    Parameters
    ----------
    images:
        The image of each entry of the first axis.
    order:
        Entries of the first axis as [image, head].
    """

    tensor: ir.Value
    images: np.ndarray
    order: np.ndarray
    scale: float


def _read(tracer: Tracer, view: View, *, collect_scale: bool) -> Heads:
    """Find image, head, token and channels behind an operand and cut them out of its producer."""
    *_, tokens, depth = view.shape
    index = view.index.reshape(-1, tokens, depth)
    shape = shape_of(view.base)
    total = int(shape[1]) if len(shape) == 3 else 0
    if (index == CONSTANT).any() or tokens != total:
        raise Unfit("its operands are not the tokens of the image", _PLAIN)
    width = int(shape[-1])
    rows, columns = index[..., 0] // width, index[:, 0] % width
    images = rows[:, 0] // total
    expected = images[:, None] * total + np.arange(total)
    if not np.array_equal(rows, expected) or not np.array_equal(
        index, rows[..., None] * width + columns[:, None]
    ):
        raise Unfit("its operands mix tokens and channels", _PLAIN)
    heads = len(index) // tracer.batch
    if not np.array_equal(np.bincount(images, minlength=tracer.batch), [heads] * tracer.batch):
        raise Unfit("its operands mix the images of a batch", _PLAIN)
    order = np.argsort(images, kind="stable").reshape(tracer.batch, heads)
    if not (columns[order] == columns[order[:1]]).all():
        raise Unfit("its heads differ from image to image", _PLAIN)

    def channels(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        lined = array.reshape(-1, tokens, depth)[order].swapaxes(1, 2)
        return per_channel(lined.reshape(-1, heads * depth))

    mul, add, scale = channels(view.mul), channels(view.add), 1.0
    if collect_scale and mul is not None and mul[0] and (mul == mul[0]).all():
        scale, mul, add = float(mul[0]), None, None if add is None else add / mul[0]
    picked = columns[order[0]].ravel()
    tensor = fold(tracer.builder, view.base, picked, mul, add, view.hints)
    return Heads(tensor, images, order, scale)


def score(x: View, y: View) -> Scores:
    """``x @ y``: queries [..., T, d] times keys [..., d, T]."""
    if len(x.shape) < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
        raise Unfit("it multiplies two activations whose shapes do not fit attention", _PLAIN)
    keys = y.moved(lambda array: array.swapaxes(-1, -2))
    return Scores(x, keys, (*x.shape[:-1], y.shape[-1]))


def attend(tracer: Tracer, scores: Scores, v: View | Const) -> View:
    """``softmax(scores) @ v``: emit the attention."""
    if isinstance(v, View) and scores.bias is None:
        try:
            return _simple(tracer, scores, v)
        except (Unfit, ShapeError):
            pass
    return attend_blocks(tracer, scores, v)


def _simple(tracer: Tracer, scores: Scores, v: View) -> View:
    """The attention of all tokens to all, from channels cut out of linear layers."""
    if isinstance(scores.q, Const) or isinstance(scores.k, Const):
        raise Unfit("its queries or keys are constants")
    lead, (tokens, depth) = v.shape[:-2], v.shape[-2:]
    if lead != scores.shape[:-2] or tokens != scores.shape[-1]:
        raise Unfit("its values do not fit the attention scores", _PLAIN)
    q = _read(tracer, scores.q, collect_scale=True)
    k = _read(tracer, scores.k, collect_scale=True)
    values = _read(tracer, v, collect_scale=False)
    if not (np.array_equal(q.order, k.order) and np.array_equal(q.order, values.order)):
        raise Unfit("its queries, keys and values order heads differently", _PLAIN)
    heads = q.order.shape[1]
    result = tracer.settler.emit(
        "Attention", q.tensor, k.tensor, values.tensor,
        heads=heads, scale=scores.scale * q.scale * k.scale,
    )  # fmt: skip
    head = np.empty(q.order.size, np.int64)
    head[q.order] = np.arange(heads)
    row = q.images[:, None] * tokens + np.arange(tokens)
    column = head[:, None] * depth + np.arange(depth)
    index = row[..., None] * (heads * depth) + column[:, None]
    return View(result, index.reshape(*lead, tokens, depth))


@handles("Softmax")
def softmax(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Of attention scores, over the keys; or of the logits of a gate."""
    scores = inputs[0]
    if scores is None:
        raise Unfit("it has no input")
    axis = attribute(node, "axis", -1)
    last = axis in (-1, len(scores.shape) - 1)
    if isinstance(scores, Scores) and not scores.normalised and last:
        return [replace(scores, normalised=True, view=None)]
    if not isinstance(scores, Scores) and last and not tracer.plain:
        try:
            return known(tracer, node, [leave(tracer, node, scores)])
        except Unfit:
            pass
    return [softmax_of(tracer, tracer.view(scores), axis)]


def split_heads(view: View, heads: int) -> View:
    """[N, T, heads * d] to [N, heads, T, d]."""
    batch, tokens, width = view.shape

    def cut(array: np.ndarray) -> np.ndarray:
        return array.reshape(batch, tokens, heads, width // heads).swapaxes(1, 2)

    return view.moved(cut)


def join_heads(view: View) -> View:
    """[N, heads, T, d] to [N, T, heads * d]."""
    batch, _, tokens, _ = view.shape
    return view.moved(lambda array: array.swapaxes(1, 2).reshape(batch, tokens, -1))


def attention(tracer: Tracer, q: View, k: View, v: View, scale: float | None) -> View:
    """Attention of operands [N, heads, T, d]."""
    scores = score(q, k.moved(lambda array: array.swapaxes(-1, -2)))
    factor = scale or q.shape[-1] ** -0.5
    return attend(tracer, replace(scores, scale=factor, normalised=True), v)


@handles("RotaryEmbedding")
def rotary_embedding(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Of ONNX opset 23: pairs of channels of each head, turned by an angle for each token."""
    view = tracer.view(inputs[0])
    cos, sin = constant(inputs[1], "cosines").array, constant(inputs[2], "sines").array
    if len(inputs) > 3 and inputs[3] is not None:
        positions = constant(inputs[3], "positions").array
        cos, sin = cos[positions], sin[positions]
    flat, count = len(view.shape) == 3, attribute(node, "num_heads", 0)
    if flat and (not count or view.shape[-1] % count):
        raise Broken("its number of heads does not divide its channels")
    heads = split_heads(view, count) if flat else view
    depth = heads.shape[-1]
    turned = attribute(node, "rotary_embedding_dim", 0) or depth
    if cos.ndim != 3 or cos.shape[-1] * 2 != turned or turned > depth:
        raise Broken(f"its cosines {list(cos.shape)} do not fit {turned} channels of a head")
    channels = np.arange(turned)
    neighbours = attribute(node, "interleaved", 0)
    pairs = channels.reshape(-1, 2) if neighbours else channels.reshape(2, -1).T
    partner = np.arange(depth)
    partner[pairs] = pairs[:, ::-1]
    form = (len(cos), 1, cos.shape[1], depth)
    own, other = np.ones(form), np.zeros(form)
    own[..., pairs] = cos[:, None, :, :, None]
    other[..., pairs] = np.stack([-sin, sin], axis=-1)[:, None]
    crossed = heads.moved(lambda array: array[..., partner])
    result = add_views(tracer, heads.affine(own, 0.0), crossed.affine(other, 0.0))
    return [join_heads(result) if flat else result]
