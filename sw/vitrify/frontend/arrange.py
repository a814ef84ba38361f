"""Any movement of rows and channels as canonical operations.

Where the operation behind a tensor cannot take a movement into its weights, ``Rows``,
``Channels``, ``Fold`` and ``Unfold`` say it; every movement inside an image is some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of

from .fold import fold
from .layout import covers, image_of_rows, sizes
from .values import CONSTANT, Unfit, View

if TYPE_CHECKING:
    from .rows import Settler

#: A scale this close to one, and a shift this close to zero, are what rounding left of them.
_NOTHING = 1e-9
_ACROSS = "it mixes the images of a batch"


def rank3(settler: Settler, value: ir.Value) -> ir.Value:
    """``value`` as [N, T, D]."""
    return value if len(shape_of(value)) == 3 else settler.once("Unfold", value, parts=1)


def take_rows(settler: Settler, value: ir.Value, index: np.ndarray) -> ir.Value:
    """The rows of the index, in order."""
    value = rank3(settler, value)
    if np.array_equal(index, np.arange(sizes(value)[0])):
        return value
    node = value.producer()
    if node is not None and node.op_type == "Rows":
        inner = np.asarray(attributes_of(node)["index"])
        index = np.where(index == CONSTANT, CONSTANT, inner[index])
        assert node.inputs[0] is not None, "Rows has one input"
        return take_rows(settler, node.inputs[0], index)
    return settler.once("Rows", value, index=[int(place) for place in index])


def take_channels(settler: Settler, value: ir.Value, index: np.ndarray) -> ir.Value:
    """The channels of the index, in order."""
    if np.array_equal(index, np.arange(sizes(value)[1])):
        return value
    if (index != CONSTANT).all() and len(np.unique(index)) == len(index):
        try:
            return fold(settler.builder, value, index)
        except Unfit:
            pass
    return settler.once("Channels", value, index=[int(place) for place in index])


def _same(parts: np.ndarray) -> bool:
    return bool((parts == parts[:1]).all())


def as_tokens(settler: Settler, view: View) -> View:
    """A view of the image as one of its pixels as tokens, [N, H * W, C]."""
    if view.base.dtype == ir.DataType.INT64 or "table" in view.base.meta:
        raise Unfit("it computes with task numbers or with constants that they choose")
    if view.base is not settler.image:
        return view
    channels, height, width = (int(size) for size in shape_of(settler.image)[1:])
    pixels = settler.once("PatchEmbed", settler.image, np.eye(channels), np.zeros(channels),
                          patch=[1, 1])  # fmt: skip
    area = height * width
    index = view.index
    image, place = index // (channels * area), index % (channels * area)
    moved = image * (channels * area) + place % area * channels + place // area
    return View(pixels, np.where(index == CONSTANT, CONSTANT, moved), view.mul, view.add,
                view.hints)  # fmt: skip


def arrange(settler: Settler, view: View) -> tuple[ir.Value, np.ndarray]:
    """The tensor [N, T, D] whose rows are those of ``view``, and the row of it for each."""
    if view.index.ndim < 2:
        raise Unfit("its input is no batch of tokens or images")
    view = as_tokens(settler, view)
    count, width = sizes(view.base)
    area, lead, channels = count * width, view.shape[:-1], view.shape[-1]
    index = view.index.reshape(-1, channels)
    live = index != CONSTANT
    image = np.where(live, index // area, -1)
    seen = image.max(axis=1)
    if (live & (image != seen[:, None])).any():
        raise Unfit(_ACROSS)
    owner = image_of_rows(lead, settler.batch, seen.reshape(lead))
    if owner is None or len(owner) % settler.batch:
        raise Unfit(_ACROSS)
    order = np.argsort(owner, kind="stable").reshape(settler.batch, -1)
    first = np.arange(settler.batch)[:, None, None] * area
    inner = index[order]
    inner = np.where(inner == CONSTANT, CONSTANT, inner - first)
    affine = [
        None if array is None else array.reshape(-1, channels)[order]
        for array in (view.mul, view.add)
    ]
    if not all(part is None or _same(part) for part in (inner, *affine)):
        raise Unfit("it treats the images of a batch differently")
    mul, add = (None if part is None else part[0] for part in affine)
    before = _affine_before(settler, view, inner[0], mul, add)
    if before is not None:
        return settler.settle(before)
    value = _move(settler, view.base, inner[0], width)
    if mul is not None:
        mul = np.where(inner[0] == CONSTANT, 1.0, mul)
    value = scaled(settler, value, mul, add, view.hints)
    rows = np.empty(order.size, np.int64)
    rows[order.ravel()] = np.arange(order.size)
    return value, rows.reshape(lead)


def _affine_before(
    settler: Settler, view: View, index: np.ndarray, mul: np.ndarray | None, add: np.ndarray | None
) -> View | None:
    """``view`` of a tensor that has its scale and shift, where that says as much."""
    count, width = sizes(view.base)
    live = index != CONSTANT
    if (mul is None and add is None) or not covers(index[live], count * width):
        return None
    parts: list[np.ndarray | None] = []
    for array, neutral in ((mul, 1.0), (add, 0.0)):
        if array is None:
            parts.append(None)
            continue
        full = np.full(count * width, neutral)
        full[index[live]] = array[live]
        if not np.array_equal(full[index[live]], array[live]):
            return None
        parts.append(full.reshape(count, width))
    base = scaled(settler, view.base, parts[0], parts[1], view.hints)
    if base is view.base:
        return None
    rest = None if view.add is None else np.where(view.index == CONSTANT, view.add, 0.0)
    return View(base, view.index, None, rest if rest is not None and rest.any() else None)


def scaled(
    settler: Settler, value: ir.Value, mul: np.ndarray | None, add: np.ndarray | None,
    hints: tuple[str, ...] = (),
) -> ir.Value:  # fmt: skip
    """``value * mul + add``, each [T, D]: in the weights behind it if they can take that."""
    mul = None if mul is None or (np.abs(mul - 1.0) <= _NOTHING).all() else mul
    add = None if add is None or (np.abs(add) <= _NOTHING).all() else add
    if mul is None and add is None:
        return value
    by_channel = [None if part is None else part[0] for part in (mul, add)]
    if all(part is None or _same(part) for part in (mul, add)):
        try:
            return fold(settler.builder, value, None, by_channel[0], by_channel[1], hints)
        except Unfit:
            pass
    scale = np.ones((1, 1)) if mul is None else _smallest(mul)
    shift = np.zeros((1, 1)) if add is None else _smallest(add)
    return settler.emit("Affine", rank3(settler, value), scale, shift, hints=hints)


def _smallest(array: np.ndarray) -> np.ndarray:
    """[T, D] without the axes along which nothing changes."""
    if _same(array):
        array = array[:1]
    return array[:, :1] if _same(array.T) else array


def _move(settler: Settler, base: ir.Value, index: np.ndarray, width: int) -> ir.Value:
    """The tensor whose element [t, d] is the base's element ``index[t, d]``."""
    live = index != CONSTANT
    row = np.where(live, index // width, CONSTANT)
    column = np.where(live, index % width, CONSTANT)
    only = row.max(axis=1)
    # whole rows: one row of the base each, the same channels in all
    if (row[live] == np.broadcast_to(only[:, None], row.shape)[live]).all():
        full = only != CONSTANT
        if not full.any():
            empty = np.full(index.shape[1], CONSTANT)
            return take_rows(settler, take_channels(settler, base, empty), only * 0)
        if _same(column[full]):
            picked = take_channels(settler, base, column[full][0])
            return take_rows(settler, picked, only)
        return _parts(settler, base, column, only)
    if turned := _turned(settler, base, row, column):
        return turned
    sides = column.max(axis=0)
    if (column[live] == np.broadcast_to(sides, column.shape)[live]).all():
        return _side_by_side(settler, base, row, sides)
    return _blocks(settler, base, index, width)


def _parts(
    settler: Settler, base: ir.Value, column: np.ndarray, row: np.ndarray
) -> ir.Value:
    """Rows that are parts of rows: every choice of channels, then one below another."""
    patterns, which = np.unique(column[row != CONSTANT], axis=0, return_inverse=True)
    picked = take_channels(settler, base, patterns.ravel())
    unfolded = settler.once("Unfold", picked, parts=len(patterns))
    place = np.full(len(row), CONSTANT)
    place[row != CONSTANT] = row[row != CONSTANT] * len(patterns) + which.ravel()
    return take_rows(settler, unfolded, place)


def _turned(
    settler: Settler, base: ir.Value, row: np.ndarray, column: np.ndarray
) -> ir.Value | None:
    """Rows that are channels of the base."""
    if (row == CONSTANT).any() or not (_same(row) and _same(column.T)):
        return None
    turned = settler.once("Transpose", rank3(settler, base))
    return take_rows(settler, take_channels(settler, turned, row[0]), column[:, 0])


def _side_by_side(
    settler: Settler, base: ir.Value, row: np.ndarray, column: np.ndarray
) -> ir.Value:
    """Rows that are several rows of the base beside each other."""
    width = sizes(base)[1]
    groups, which = np.unique(row, axis=1, return_inverse=True)
    which = which.ravel()
    # in the order of their first channel, so that folding alone may do
    first = np.array([np.flatnonzero(which == number)[0] for number in range(groups.shape[1])])
    rank = np.argsort(np.argsort(first))
    groups, which = groups[:, np.argsort(first)], rank[which]
    members = [column[which == number] for number in range(groups.shape[1])]
    if all(np.array_equal(part, members[0]) for part in members):
        base, width = take_channels(settler, base, members[0]), len(members[0])
        place = np.empty(len(column), np.int64)
        for number in range(len(members)):
            place[which == number] = number * width + np.arange(width)
    else:
        place = which * width + column
    stacked = take_rows(settler, base, groups.ravel())
    folded = settler.once("Fold", stacked, rows=groups.shape[1])
    return take_channels(settler, folded, place)


def _blocks(settler: Settler, base: ir.Value, index: np.ndarray, width: int) -> ir.Value:
    """Blocks of channels, each from one row of the base; in the worst case of one channel."""
    rows, channels = index.shape
    for block in range(channels - 1, 0, -1):
        if channels % block:
            continue
        parts = index.reshape(rows * (channels // block), block)
        row = np.where(parts == CONSTANT, CONSTANT, parts // width)
        top = row.max(axis=1, keepdims=True)
        if ((row == top) | (row == CONSTANT)).all():
            moved = _move(settler, base, parts, width)
            return settler.once("Fold", moved, rows=channels // block)
    raise Unfit("it rearranges its input in a way that cannot be followed")
