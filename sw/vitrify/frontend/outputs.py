"""What the model gives back, in the shape that the original has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import ARRANGE

from .arrange import as_tokens
from .layout import image_axis, kinds, layout_of, sizes
from .values import Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def formed(tracer: Tracer, view: View) -> ir.Value:
    """A tensor of the canonical graph that equals ``view``, shape and all."""
    settler, rank = tracer.settler, len(view.shape)
    view = as_tokens(settler, view)
    if rank < 2 or (tracer.batch > 1 and image_axis(view, tracer.batch) != 0):
        raise Unfit("its result is an output of the model, but its first axis is not the batch")
    if view.shape[0] != tracer.batch:
        raise Unfit("its result is an output of the model, but no batch of images")
    layout = layout_of(kinds(view), view.shape)
    lined = layout.lined(view)
    value = settler.exact(lined.moved(lambda array: array.reshape(tracer.batch, -1, layout.width)))
    order = (*layout.rows, *layout.channels)
    plain = order == tuple(range(rank))
    if plain and view.shape[1:] == sizes(value):
        return value
    if rank == 2 and sizes(value)[0] == 1:
        return settler.emit("SelectToken", value, index=0)
    apart = np.arange(np.prod(sizes(value))).reshape([view.shape[axis] for axis in order[1:]])
    index = apart.transpose(np.argsort(order[1:]))
    width = sizes(value)[1]
    return settler.emit(
        ARRANGE, value, np.ones(width), np.zeros(width),
        index=index.ravel().tolist(), form=list(index.shape),
    )
