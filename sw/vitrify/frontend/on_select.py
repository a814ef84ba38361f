"""Elements of several tensors, chosen by constants: Where, and what goes to fixed places."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .layout import spread
from .on_elementwise import function
from .on_picked import targets_of
from .pairs import combine
from .task import is_selected, is_task
from .trace import Tracer, attribute, constant, handles
from .values import CONSTANT, Const, Scores, Traced, Unfit, View

_Part = View | Const


def select(tracer: Tracer, mask: np.ndarray, x: _Part, y: _Part) -> View:
    """``x`` where ``mask`` holds, ``y`` elsewhere."""
    shape = np.broadcast_shapes(mask.shape, x.shape, y.shape)
    mask = np.broadcast_to(mask, shape)
    if isinstance(x, Const):
        if isinstance(y, Const):
            raise Unfit("it chooses between constants")
        x, y, mask = y, x, ~mask
    x = spread(x, shape)
    if isinstance(y, Const):
        kept = np.broadcast_to(y.array, shape).astype(np.float64)
        index, mul, add = np.int32(CONSTANT), 1.0, kept
    elif y.base is x.base:
        y = spread(y, shape)
        index, mul, add = y.index, y.mul, y.add
        mul, add = 1.0 if mul is None else mul, 0.0 if add is None else add
    else:
        kept = mask.astype(np.float64)
        return combine(tracer, "Add", x.affine(kept, 0.0), y.affine(1.0 - kept, 0.0))
    own_mul = 1.0 if x.mul is None else x.mul
    own_add = 0.0 if x.add is None else x.add
    scale, shift = np.where(mask, own_mul, mul), np.where(mask, own_add, add)
    return View(
        x.base,
        np.where(mask, x.index, index).astype(np.int32),
        None if (scale == 1.0).all() else scale,
        shift if shift.any() else None,
        x.hints,
    )


@handles("Where")
def where(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A choice by a constant mask, or a step of a function of one variable."""
    mask, *values = inputs
    fixed = isinstance(mask, Const) and mask.array.size > 1 and np.ptp(mask.array.astype(int))
    if fixed and isinstance(mask, Const) and not any(isinstance(v, Scores) for v in values):
        x, y = (v if isinstance(v, Const) else tracer.view(v) for v in values)
        return [select(tracer, mask.array.astype(bool), x, y)]
    return function(tracer, node, inputs)


@handles("ScatterND", "ScatterElements")
def scatter(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Elements put to places that are known."""
    data, index, updates = inputs
    places = constant(index, "place")
    if attribute(node, "reduction", "none") != "none":
        raise Unfit("it adds up what it puts to one place")
    x, y = (value if isinstance(value, Const) else tracer.view(value) for value in (data, updates))
    for value in (x, y):
        if isinstance(value, View) and (is_task(value) or is_selected(value)):
            raise Unfit("it computes with task numbers or with constants that they choose")
    # not by the reference, which goes place by place
    targets = targets_of(node, x.shape, places.array, y.shape).reshape(-1)
    found = np.full(np.prod(x.shape, dtype=int), -1)
    found[targets] = np.arange(targets.size)
    found = found.reshape(x.shape)
    new, source = found >= 0, np.maximum(found, 0)

    def placed(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1)[source]

    other = Const(placed(y.array), y.name) if isinstance(y, Const) else y.moved(placed)
    if new.all():
        return [other]
    if isinstance(other, View):
        # what is not put anywhere is nothing, so that images stay apart
        other.index = np.where(new, other.index, CONSTANT).astype(np.int32)
    return [select(tracer, ~new, x, other)]
