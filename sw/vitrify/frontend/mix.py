"""Constant matrices over tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .arrange import as_tokens
from .layout import CHANNEL, ROW, Layout, image_axis, kinds, layout_of, sizes
from .values import Unfit, View

if TYPE_CHECKING:
    from .rows import Settler


def runs_over_rows(view: View, axis: int) -> bool:
    """Whether an axis of ``view`` runs over the rows of its tensor."""
    return kinds(view)[axis] == ROW


def over_heads(view: View) -> bool:
    """Whether the last axis of ``view`` chooses among blocks of channels, each of another axis."""
    found = kinds(view)
    if found[-1] != CHANNEL:
        return False
    own = _stride(view, len(found) - 1)
    return any(
        kind == CHANNEL and _stride(view, axis) < own for axis, kind in enumerate(found[:-1])
    )


def _stride(view: View, axis: int) -> int:
    """The distance in the tensor between neighbours along an axis that runs over channels."""
    place: list[int | slice] = [0] * len(view.shape)
    place[axis] = slice(0, 2)
    line = view.index[tuple(place)]
    return abs(int(line[1]) - int(line[0]))


def mix_heads(
    settler: Settler, view: View, matrix: np.ndarray, hints: tuple[str, ...]
) -> View:
    """``view @ matrix.T`` over an axis of blocks of channels: they become rows, and are mixed."""
    axis, first = len(view.shape) - 1, image_axis(view, settler.batch)
    layout = layout_of(kinds(view), view.shape, first)
    rest = [each for each in layout.channels if each != axis]
    outer = tuple(each for each in rest if _stride(view, each) > _stride(view, axis))
    inner = tuple(each for each in rest if each not in outer)
    order = Layout(view.shape, layout.rows, (*outer, axis, *inner))
    value = settler.exact(order.lined(view))
    parts = math.prod(view.shape[each] for each in (*outer, axis))
    apart = settler.once("Unfold", value, parts=parts)
    groups = sizes(apart)[0] // view.shape[axis]
    mixed = settler.emit(
        "Mix", apart, matrix[None], np.zeros(len(matrix)), heads=1, groups=groups, hints=hints
    )
    back = Layout((*view.shape[:-1], len(matrix)), (*layout.rows, *outer, axis), inner)
    rows = np.arange(settler.batch * sizes(mixed)[0])
    return settler.view_of_rows(mixed, rows).moved(back.back)


def mix(
    settler: Settler, view: View, axis: int, matrix: np.ndarray, hints: tuple[str, ...]
) -> View:
    """``view`` with ``matrix``, [out, in], applied along an axis that runs over rows."""
    axis %= len(view.shape)
    view = as_tokens(settler, view)
    first = image_axis(view, settler.batch)
    if first == axis:
        raise Unfit("it mixes the images of a batch")
    layout = layout_of(kinds(view), view.shape, first, (axis,))
    value = settler.exact(layout.lined(view))
    groups = math.prod(view.shape[place] for place in layout.rows[:-1]) // settler.batch
    mixed = settler.emit(
        "Mix", value, matrix[None], np.zeros(len(matrix)), heads=1, groups=groups, hints=hints
    )
    shape = (*view.shape[:axis], len(matrix), *view.shape[axis + 1 :])
    back = layout_of(kinds(view), shape, first, (axis,))
    rows = np.arange(settler.batch * sizes(mixed)[0])
    return settler.view_of_rows(mixed, rows).moved(back.back)

