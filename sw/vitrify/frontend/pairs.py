"""Operations on two activations, element by element, wherever their rows and channels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .arrange import as_tokens, rank3
from .layout import (
    CHANNEL,
    ROW,
    Layout,
    common,
    covers,
    image_axis,
    kinds,
    layout_of,
    sizes,
    split_merged,
    spread,
)  # fmt: skip
from .normal import as_norm
from .rotary import rotated
from .values import Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer

_Rows = tuple[ir.Value, np.ndarray]


def align(tracer: Tracer, first: _Rows, second: _Rows) -> tuple[ir.Value, ir.Value, np.ndarray]:
    """Two tensors with as many rows, and the row of them that each row of the views is."""
    (x, rows), (y, others) = first, second
    settler = tracer.settler
    if np.array_equal(rows, others) and sizes(x)[0] == sizes(y)[0]:
        if len(shape_of(x)) != len(shape_of(y)):
            x, y = rank3(settler, x), rank3(settler, y)
        return x, y, rows
    lead = rows.shape
    total = tracer.batch * sizes(x)[0]
    if rows.size == total and covers(rows, total):
        # the rows of x stay where they are
        order = np.argsort(rows.ravel()).reshape(tracer.batch, -1)
        return rank3(settler, x), settler.in_order(y, others.ravel()[order]), rows
    by_image = np.argsort(rows.ravel() // sizes(x)[0], kind="stable").reshape(tracer.batch, -1)
    made = [
        settler.in_order(value, each.ravel()[by_image])
        for value, each in ((x, rows), (y, others))
    ]
    place = np.empty(rows.size, np.int64)
    place[by_image.ravel()] = np.arange(rows.size)
    return made[0], made[1], place.reshape(lead)


def lined_up(tracer: Tracer, x: View, y: View) -> tuple[View, View, Layout]:
    """Both broadcast to one shape, rows before channels."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    x, y = as_tokens(tracer.settler, x), as_tokens(tracer.settler, y)
    x, y = spread(x, shape), spread(y, shape)
    layout = common(*_both_split(x, y), tracer.batch)
    layout.whole = shape
    return layout.lined(x), layout.lined(y), layout


def _both_split(x: View, y: View) -> tuple[View, View]:
    """Both with axes that run over rows and channels split, where that is the same in both."""
    (first, _), (second, _) = split_merged(x), split_merged(y)
    return (first, second) if first.shape == second.shape else (x, y)


def combine(tracer: Tracer, op: str, x: View, y: View) -> View:
    """A canonical operation of two tensors of one shape."""
    x, y, layout = lined_up(tracer, x, y)
    if op == "Add" and (turned := rotated(tracer, x, y, layout)) is not None:
        return turned.moved(layout.back)
    first, second, rows = align(tracer, tracer.settler.settle(x), tracer.settler.settle(y))
    result = tracer.settler.emit(op, first, second)
    return tracer.settler.view_of_rows(result, rows).moved(layout.back)


def _repeats(view: View, width: int) -> bool:
    """Whether every ``width`` channels of ``view`` are the same element."""
    for array in (view.index, view.mul, view.add):
        if array is not None:
            parts = array.reshape(*array.shape[:-1], -1, width)
            if not (parts == parts[..., :1]).all():
                return False
    return True


def _narrow(view: View, layout: Layout) -> View:
    """``view`` without channels that only repeat those before them."""
    width = layout.width
    candidates = {width} | {
        int(np.prod([layout.shape[axis] for axis in layout.channels[place:]]))
        for place in range(len(layout.channels))
    }
    for step in sorted(candidates, reverse=True):
        if step > 1 and _repeats(view, step):
            return view.moved(lambda array, step=step: array[..., ::step])
    return view


def multiply(tracer: Tracer, x: View, y: View) -> View:
    """The product of two activations; one may have fewer rows or channels."""
    x, y, layout = lined_up(tracer, x, y)
    narrow_x, narrow_y = _narrow(x, layout), _narrow(y, layout)
    if narrow_x.shape[-1] < narrow_y.shape[-1]:
        x, y, narrow_y = y, x, narrow_x
    settler = tracer.settler
    value, rows = settler.settle(x)
    factor, others = settler.settle(narrow_y)
    if sizes(value)[0] == 1 and sizes(factor)[0] > 1 and narrow_y.shape[-1] == x.shape[-1]:
        value, rows, factor, others = factor, others, value, rows
    if sizes(factor)[0] == 1 and np.array_equal(others, rows // sizes(value)[0]):
        first, second = rank3(settler, value), rank3(settler, factor)
    else:
        first, second, rows = align(tracer, (value, rows), (factor, others))
        first, second = rank3(settler, first), rank3(settler, second)
    result = as_norm(settler, first, second) or settler.emit("Multiply", first, second)
    return settler.view_of_rows(result, rows).moved(layout.back)


def join(tracer: Tracer, parts: list[View], axis: int) -> tuple[ir.Value, list[np.ndarray]]:
    """Different tensors in one: the tensor, and the index of each part in it."""
    parts = [as_tokens(tracer.settler, part) for part in parts]
    found = [kinds(part) for part in parts]
    along = {kind[axis] for kind in found}
    by_row = ROW in along or CHANNEL not in along
    settler = tracer.settler
    merged = [
        next((kind[place] for kind in found if kind[place] in (ROW, CHANNEL)), ROW)
        for place in range(len(found[0]))
    ]
    first = image_axis(parts[0], tracer.batch)
    if axis == first:
        raise Unfit("it joins the images of a batch")
    merged[axis] = ROW if by_row else CHANNEL
    layouts = [
        layout_of(merged, part.shape, first, (axis,) if by_row else ()) for part in parts
    ]
    lined = [layout.lined(part) for layout, part in zip(layouts, parts, strict=True)]
    settled = [settler.settle(view) for view in lined]
    if by_row:
        return _below(tracer, settled, layouts)
    value, rows = settled[0]
    columns = [np.arange(sizes(value)[1])]
    for other, others in settled[1:]:
        width = sizes(value)[1]
        value, other, rows = align(tracer, (value, rows), (other, others))
        value = settler.emit("ConcatChannels", value, other)
        columns.append(width + np.arange(sizes(other)[1]))
    total = sizes(value)[1]
    made = [rows[..., None] * total + column for column in columns]
    return value, [layout.back(index) for layout, index in zip(layouts, made, strict=True)]


def _below(
    tracer: Tracer, settled: list[_Rows], layouts: list[Layout]
) -> tuple[ir.Value, list[np.ndarray]]:
    """Rows of one tensor below those of another."""
    settler, batch = tracer.settler, tracer.batch
    value: ir.Value | None = None
    places: list[tuple[int, np.ndarray, np.ndarray]] = []
    for each, rows in settled:
        own, (image, inner) = rank3(settler, each), np.divmod(rows, sizes(each)[0])
        if rows.size < batch * sizes(each)[0]:
            # rows that nothing asks for stay out
            own = settler.in_order(each, rows.reshape(batch, -1))
            image, inner = np.divmod(np.arange(rows.size).reshape(rows.shape), sizes(own)[0])
        places.append((0 if value is None else sizes(value)[0], image, inner))
        value = own if value is None else settler.emit("ConcatRows", value, own)
    assert value is not None, "there are parts"
    total, width = sizes(value)
    made = []
    for (before, image, inner), layout in zip(places, layouts, strict=True):
        rows = image * total + before + inner
        made.append(layout.back(rows[..., None] * width + np.arange(width)))
    return value, made
