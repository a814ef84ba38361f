"""Rotary positions: two products with constants of the same channels, in another order, added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of

from .arrange import rank3, take_channels
from .fold import fold
from .layout import Layout, sizes
from .rows import rows_of
from .values import CONSTANT, Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def rotated(tracer: Tracer, x: View, y: View, layout: Layout) -> View | None:
    """``x + y`` for lined-up views of one tensor, each of its channels times a constant by row."""
    if x.base is not y.base or x.base is tracer.image or x.mul is None or y.mul is None:
        return None
    if (x.index == CONSTANT).any() or (y.index == CONSTANT).any():
        return None
    try:
        first, second = rows_of(x), rows_of(y)
    except Unfit:
        return None
    own = np.sort(first.columns)
    same = np.array_equal(first.rows, second.rows) and np.array_equal(own, np.sort(second.columns))
    if not same or len(np.unique(own)) != len(own) or np.array_equal(first.columns, second.columns):
        return None
    count = sizes(x.base)[0]
    rows = first.rows.reshape(tracer.batch, -1)
    inner = rows - np.arange(tracer.batch)[:, None] * count
    once = len(np.unique(inner[0])) == inner.shape[1]
    if not once or inner.min() < 0 or not (inner == inner[:1]).all():
        return None
    tables = []
    for view, neutral in ((x, 1.0), (y, 0.0)):
        assert view.mul is not None, "looked at above"
        factors = view.mul.reshape(tracer.batch, -1, layout.width)
        if not (factors == factors[:1]).all():
            return None
        # rows that nothing turns keep what they are
        table = np.full((count, layout.width), neutral)
        table[inner[0]] = factors[0]
        tables.append(table)
    place = np.empty(sizes(x.base)[1], np.int64)
    place[first.columns] = np.arange(layout.width)
    shift = np.zeros(layout.width)
    for view, columns in ((x, first.columns), (y, second.columns)):
        if view.add is not None:
            found = _shift(view, layout.width)
            if found is None:
                return None
            live, numbers = found
            shift[place[columns[live]]] = numbers
    settler = tracer.settler
    for view, columns in ((x, first.columns), (y, second.columns)):
        wanted = 0.0 if view.add is None else view.add
        assert view.mul is not None, "looked at above"
        if not np.allclose(view.mul * shift[place[columns]], wanted, 1e-5, 1e-6):
            return None
    try:
        value = fold(settler.builder, x.base, first.columns, None, shift if shift.any() else None)
    except Unfit:
        if shift.any():
            return None
        value = take_channels(settler, x.base, first.columns)
    value = rank3(settler, value)
    result = settler.emit(
        "Rotary", value, *tables, partner=[int(each) for each in place[second.columns]]
    )
    return settler.view_of_rows(result, first.rows)


def _shift(view: View, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a view is ``(channel + shift) * mul``: which channels tell their shift, and it."""
    assert view.mul is not None, "only scaled views are looked at"
    assert view.add is not None, "only shifted views are looked at"
    mul, add = view.mul.reshape(-1, width), view.add.reshape(-1, width)
    best = np.abs(mul).argmax(axis=0), np.arange(width)
    live = mul[best] != 0
    return (live, add[best][live] / mul[best][live]) if live.any() else None


def unturned(views: list[View]) -> list[View]:
    """Views of tensors, those of rows that a ``Rotary`` leaves alone as views of its result."""
    turned = [
        node
        for view in views
        if (node := view.base.producer()) is not None and node.op_type == "Rotary"
    ]
    made = []
    for view in views:
        found = (each for node in turned if (each := _as_turned(node, view)) is not None)
        made.append(next(found, view))
    return made


def _as_turned(node: ir.Node, view: View) -> View | None:
    """``view`` as one of the result of ``node``, which changes nothing of what it looks at."""
    x = node.inputs[0]
    assert x is not None, "an operation of x"
    index = _through_fold(view, x)
    if index is None:
        return None
    cos, sin = (array_of(value) for value in node.inputs[1:] if value is not None)
    live = index[index != CONSTANT] % cos.size
    if (cos.ravel()[live] != 1.0).any() or (sin.ravel()[live] != 0.0).any():
        return None
    add = None if view.add is None else np.where(index == CONSTANT, view.add, 0.0)
    return View(node.outputs[0], index, None, add, view.hints)


def _through_fold(view: View, folded: ir.Value) -> np.ndarray | None:
    """The index in ``folded``, when it was made of the view's tensor and has its shift in it."""
    if view.mul is not None:
        return None
    if view.base is folded:
        return view.index if view.add is None else None
    width = sizes(view.base)[1]
    for key, value in view.base.meta.get("folds", {}).items():
        if value is not folded or key[1] is not None:
            continue
        columns = np.arange(width) if key[0] is None else np.frombuffer(key[0], np.int64)
        shift = np.zeros(len(columns)) if key[2] is None else np.frombuffer(key[2])
        place = np.full(width, -1)
        place[columns] = np.arange(len(columns))
        live = view.index != CONSTANT
        found = place[view.index % width]
        add = np.zeros(view.shape) if view.add is None else view.add
        if (found[live] >= 0).all() and np.allclose(shift[found][live], add[live], 1e-5, 1e-6):
            index = view.index // width * len(columns) + found
            return np.where(live, index, CONSTANT).astype(np.int32)
    return None
