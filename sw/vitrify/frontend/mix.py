"""Constant matrices over tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .arrange import as_tokens
from .layout import ROW, image_axis, kinds, layout_of, sizes
from .values import Unfit, View

if TYPE_CHECKING:
    from .rows import Settler


def runs_over_rows(view: View, axis: int) -> bool:
    """Whether an axis of ``view`` runs over the rows of its tensor."""
    return kinds(view)[axis] == ROW


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

