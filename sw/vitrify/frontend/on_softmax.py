"""Softmax of anything that is no attention score and no router."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .arrange import as_tokens
from .layout import CHANNEL, beside_images, image_axis, kinds, layout_of, sizes, split_merged
from .values import Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def softmax_of(tracer: Tracer, view: View, axis: int) -> View:
    """Softmax over one axis, of channels or of rows."""
    shape, axis = view.shape, axis % len(view.shape)
    apart, parts = split_merged(as_tokens(tracer.settler, view))
    if len(parts[axis]) == 1:
        view, axis = apart, parts[axis][0]

    def work(view: View, axes: tuple[int, ...]) -> View:
        return _softmax_of(tracer, view, axes[0])

    made = beside_images(work, view, (axis,), tracer.batch)
    return made.moved(lambda array: array.reshape(shape))


def _softmax_of(tracer: Tracer, view: View, axis: int) -> View:
    settler, batch = tracer.settler, tracer.batch
    view = as_tokens(settler, view)
    found, first = kinds(view), image_axis(view, batch)
    if axis == first and batch > 1:
        raise Unfit("it normalises over the images of a batch")
    if found[axis] == CHANNEL:
        base = layout_of(found, view.shape, first)
        rest = tuple(each for each in base.channels if each != axis)
        layout = type(base)(base.shape, base.rows, (*rest, axis))
        value, rows = settler.settle(layout.lined(view))
        heads = math.prod(view.shape[each] for each in rest)
        made = settler.emit("Softmax", value, axis="channels", groups=heads)
        return settler.view_of_rows(made, rows).moved(layout.back)
    layout = layout_of(found, view.shape, first, (axis,))
    value = settler.exact(layout.lined(view))
    groups = sizes(value)[0] // view.shape[axis]
    made = settler.emit("Softmax", value, axis="tokens", groups=groups)
    rows = np.arange(batch * sizes(made)[0]).reshape([view.shape[each] for each in layout.rows])
    return settler.view_of_rows(made, rows).moved(layout.back)
