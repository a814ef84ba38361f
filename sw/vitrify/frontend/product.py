"""Products of two activations: in blocks of images, groups of rows and heads of channels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from .layout import CHANNEL, ROW, image_of_rows, kinds, sizes
from .values import CONSTANT, Const, Scores, Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer

#: What stands for minus infinity in masks: far below every score, and no special number.
LOWEST = -1e4


@dataclass
class Blocks:
    """How the leading axes of operands fall into images, groups and heads.

    Parameters
    ----------
    order:
        Numbers of the flat leading axes, [batch, groups, heads].
    """

    order: np.ndarray

    @property
    def groups(self) -> int:
        """Groups of rows of an image."""
        return self.order.shape[1]

    @property
    def heads(self) -> int:
        """Heads of a row."""
        return self.order.shape[2]


def _keys(view: View) -> tuple[np.ndarray, list[bytes], list[bytes]] | None:
    """Image, rows and channels of each matrix; ``None`` if one is no rows times channels."""
    count, width = sizes(view.base)
    index = view.index.reshape(-1, *view.shape[-2:])
    if (index == CONSTANT).any():
        return None
    rows, columns = index[..., :1] // width, index[:, :1] % width
    if not np.array_equal(index, rows * width + columns):
        return None
    image = rows[:, 0, 0] // count
    inner = rows[..., 0] - image[:, None] * count
    if inner.min() < 0 or inner.max() >= count:
        return None
    return image, [row.tobytes() for row in inner], [column.tobytes() for column in columns[:, 0]]


def _number(keys: list[tuple[bytes, ...]]) -> np.ndarray:
    """Equal keys as equal numbers, in the order in which they come."""
    found: dict[tuple[bytes, ...], int] = {}
    return np.array([found.setdefault(key, len(found)) for key in keys])


def blocks_of(tracer: Tracer, lead: tuple[int, ...], views: list[View]) -> Blocks:
    """Groups and heads of operands with the leading axes ``lead``."""
    batch, total = tracer.batch, math.prod(lead)
    seen = np.full(total, -1)
    for view in views:
        count, width = sizes(view.base)
        flat = view.index.reshape(total, -1)
        seen = np.maximum(seen, np.where(flat == CONSTANT, -1, flat // (count * width)).max(axis=1))
    owner = image_of_rows(lead, batch, seen.reshape(lead))
    if owner is None or total % batch:
        raise Unfit("its operands mix the images of a batch")
    order = np.argsort(owner, kind="stable").reshape(batch, -1)
    every = [_keys(view) for view in views]
    inner = order.shape[1]
    if all(keys is not None for keys in every):
        first = order[0]
        group = _number([tuple(keys[1][n] for keys in every if keys) for n in first])
        head = _number([tuple(keys[2][n] for keys in every if keys) for n in first])
        groups, heads = group.max() + 1, head.max() + 1
        place = group * heads + head
        if groups * heads == inner and len(np.unique(place)) == inner:
            sort = np.argsort(place)
            return Blocks(order[:, sort].reshape(batch, groups, heads))
        # as heads, operands whose rows are the same in all matrices stay as they are; as groups,
        # those whose channels are
        rows = sum(len({keys[1][n] for n in first}) > 1 for keys in every if keys)
        columns = sum(len({keys[2][n] for n in first}) > 1 for keys in every if keys)
        if rows <= columns:
            return Blocks(order.reshape(batch, 1, inner))
    return Blocks(order.reshape(batch, inner, 1))


def settle_blocks(tracer: Tracer, blocks: Blocks, operand: View | Const) -> ir.Value:
    """The tensor [N, groups * rows, heads * channels] of an operand [..., rows, channels]."""
    rows, channels = operand.shape[-2:]

    def line_up(array: np.ndarray) -> np.ndarray:
        parts = array.reshape(-1, rows, channels)[blocks.order]
        return parts.swapaxes(2, 3).reshape(len(parts), blocks.groups * rows, -1)

    if isinstance(operand, View):
        return tracer.settler.exact(operand.moved(line_up))
    lined = line_up(operand.array)
    if not (lined == lined[:1]).all():
        raise Unfit("it gives every image of a batch other constants")
    return tracer.settler.emit(
        "ConstantRows", tracer.image, lined[0], hints=(operand.name,)
    )


def back(blocks: Blocks, value: ir.Value, shape: tuple[int, ...]) -> View:
    """The view [*lead, rows, channels] of a tensor of blocks."""
    batch, groups, heads = blocks.order.shape
    rows, channels = shape[-2:]
    index = np.arange(batch * groups * rows * heads * channels, dtype=np.int32)
    parts = index.reshape(batch, groups, rows, heads, channels).swapaxes(2, 3)
    made = np.empty((batch * groups * heads, rows, channels), np.int32)
    made[blocks.order] = parts
    return View(value, made.reshape(shape))


def _wide(value: View | Const, lead: tuple[int, ...]) -> View | Const:
    shape = (*lead, *value.shape[-2:])
    if value.shape == shape:
        return value
    if isinstance(value, Const):
        return Const(np.broadcast_to(value.array, shape), value.name)
    return value.moved(lambda array: np.broadcast_to(array, shape))


def product(
    tracer: Tracer, x: View | Const, y: View | Const, layout: str, scale: float = 1.0
) -> View:
    """``scale * X @ Y`` of operands given as [..., rows, channels]; see the operation Product."""
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = _wide(x, lead), _wide(y, lead)
    blocks = blocks_of(tracer, lead, [v for v in (x, y) if isinstance(v, View)])
    first, second = (settle_blocks(tracer, blocks, value) for value in (x, y))
    result = tracer.settler.emit(
        "Product", first, second,
        heads=blocks.heads, groups=blocks.groups, scale=scale, layout=layout,
    )  # fmt: skip
    rows = x.shape[-1] if layout[0] == "t" else x.shape[-2]
    columns = y.shape[-2] if layout[1] == "t" else y.shape[-1]
    return back(blocks, result, (*lead, rows, columns))


def _swapped(view: View) -> View:
    return view.moved(lambda array: array.swapaxes(-1, -2))


def rows_first(view: View) -> bool:
    """Whether the last axis of matrices runs over channels, not over rows."""
    found = kinds(view)
    return not (found[-1] == ROW or (found[-2] == CHANNEL and found[-1] != CHANNEL))


def multiply_matrices(tracer: Tracer, x: View, y: View) -> View | Scores:
    """``x @ y`` of two activations; products of rows wait for what becomes of them."""
    if min(len(x.shape), len(y.shape)) < 2:
        raise Unfit("it multiplies by a vector that depends on the image")
    left, right = rows_first(x), rows_first(y)
    if left and not right:
        keys = _swapped(y)
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return Scores(x, keys, (*lead, x.shape[-2], y.shape[-1]))
    if left and right:
        return product(tracer, x, y, "nn")
    if right:
        return product(tracer, _swapped(x), y, "tn")
    # X.T @ Y.T is the transpose of Y @ X
    return _swapped(product(tracer, _swapped(y), _swapped(x), "nn"))


def as_view(tracer: Tracer, scores: Scores, turned: bool = False) -> View:
    """Scores as a tensor of their own: queries as rows, or (turned) keys."""
    if scores.view is None or scores.view[0] != turned:
        q, k = (scores.k, scores.q) if turned else (scores.q, scores.k)
        view = product(tracer, q, k, "nt", scores.scale)
        bias = scores.bias
        if turned:
            view, bias = _swapped(view), bias
        view = view.moved(lambda array: array.reshape(scores.shape))
        if bias is not None:
            view = view.affine(1.0, np.maximum(bias, LOWEST))
        if scores.normalised:
            from .on_softmax import softmax_of

            view = softmax_of(tracer, view, -1)
        scores.view = turned, view
    return scores.view[1]


def regrouped(scores: Scores, lead: np.ndarray) -> Scores:
    """Scores whose leading axes, flat, are the given ones in the order of ``lead``."""

    def moved(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, *array.shape[-2:])[lead]

    def operand(value: View | Const) -> View | Const:
        value = _wide(value, scores.shape[:-2])
        if isinstance(value, Const):
            return Const(moved(value.array), value.name)
        return value.moved(moved)

    bias = None if scores.bias is None else moved(scores.bias)
    shape = (*lead.shape, *scores.shape[-2:])
    return replace(
        scores, q=operand(scores.q), k=operand(scores.k), shape=shape, bias=bias, view=None
    )


def _compact(bias: np.ndarray | None, blocks: Blocks, shape: tuple[int, ...]) -> np.ndarray:
    """The bias as [groups, heads, queries, keys], of size one where nothing changes."""
    if bias is None:
        return np.zeros((1, 1, 1, 1))
    full = np.broadcast_to(bias, shape).reshape(-1, *shape[-2:])[blocks.order]
    if not (full == full[:1]).all():
        raise Unfit("it masks the images of a batch differently")
    array = np.maximum(full[0], LOWEST)
    for axis in range(4):
        first = array.take([0], axis)
        if (array == first).all():
            array = first
    return array


def attend(tracer: Tracer, scores: Scores, v: View | Const) -> View:
    """Weights of whatever kind times values: one attention of groups and heads."""
    lead = np.broadcast_shapes(scores.shape[:-2], v.shape[:-2])
    if lead != scores.shape[:-2]:
        raise Unfit("its values do not fit the attention scores")
    q, k, v = (_wide(operand, lead) for operand in (scores.q, scores.k, v))
    blocks = blocks_of(tracer, lead, [each for each in (q, k, v) if isinstance(each, View)])
    operands = [settle_blocks(tracer, blocks, each) for each in (q, k, v)]
    bias = _compact(scores.bias, blocks, scores.shape)
    same = len({sizes(value) for value in operands}) == 1
    if same and blocks.groups == 1 and not bias.any():
        result = tracer.settler.emit(
            "Attention", *operands, heads=blocks.heads, scale=scores.scale
        )
    else:
        result = tracer.settler.emit(
            "CrossAttention", *operands, bias,
            heads=blocks.heads, groups=blocks.groups, scale=scores.scale, kind="softmax",
        )  # fmt: skip
    return back(blocks, result, (*lead, scores.shape[-2], v.shape[-1]))

