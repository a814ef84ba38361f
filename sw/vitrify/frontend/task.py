"""Constants chosen by a task number, as tables of what each task gets.

A chosen constant is a view of a *selected* tensor, [N, size] or [1, size], that is no part of the
canonical graph: row n holds the numbers, flat, of the task of picture n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of, shape_of, tensor

from .fold import emit, hints_of
from .values import CONSTANT, Const, Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer

_FIX = "use it to choose the weights and biases of linear layers"


def is_task(view: View) -> bool:
    """Whether ``view`` holds task numbers."""
    return view.base.is_graph_input() and view.base.dtype == ir.DataType.INT64


def is_selected(view: View) -> bool:
    """Whether ``view`` holds constants chosen by a task."""
    return "table" in view.base.meta


def select(table: Const, task: View) -> View:
    """``table[task]``: the first axis of the table counts the tasks."""
    if task.mul is not None or task.add is not None or (task.index == CONSTANT).any():
        raise Unfit("it computes with task numbers", _FIX)
    array = table.array.astype(np.float64)
    size = int(np.prod(array.shape[1:]))
    base = tensor("selected", [*shape_of(task.base)[:1], size])
    base.meta["table"] = array.reshape(len(array), size)
    base.meta["task"] = task.base
    inner = np.arange(size).reshape(array.shape[1:])
    return View(base, task.index.reshape(*task.shape, *(1,) * inner.ndim) * size + inner,
                hints=(table.name,))  # fmt: skip


def read(view: View, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """The constants of every task, and the picture of each place.

    Parameters
    ----------
    axes:
        How many of the last axes are the constant's own; the others run over pictures.

    Returns
    -------
    ndarray, ndarray
        [S, ...]; the leading axes of ``view``.
    """
    table: np.ndarray = view.base.meta["table"]
    own = view.shape[len(view.shape) - axes :]
    index = view.index.reshape(-1, *own)
    picture, place = index // table.shape[1], index % table.shape[1]
    parts = [place]
    for array, neutral in ((view.mul, 1.0), (view.add, 0.0)):
        parts.append(np.full(index.shape, neutral) if array is None else array.reshape(index.shape))
    first = picture.reshape(len(picture), -1)[:, :1]
    uneven = any(not np.array_equal(part, np.broadcast_to(part[:1], part.shape)) for part in parts)
    if uneven or not (picture.reshape(len(picture), -1) == first).all():
        raise Unfit("it mixes the constants of several pictures", _FIX)
    place, mul, add = (part[0] for part in parts)
    return table[:, place] * mul + add, first.reshape(view.shape[: len(view.shape) - axes])


def _check(tracer: Tracer, pictures: np.ndarray, rows: np.ndarray, tensor_: ir.Value) -> None:
    """Whether every row meets the constants of its own picture."""
    if np.prod(pictures.shape) == 1 and tracer.batch > 1:
        return
    shape = shape_of(tensor_)
    count = int(shape[1]) if len(shape) == 3 else 1
    if not np.array_equal(np.broadcast_to(pictures, rows.shape), rows // count):
        raise Unfit("it gives a picture the constants of another picture's task", _FIX)


def task_linear(tracer: Tracer, x: View, chosen: View, name: str) -> View:
    """``x @ chosen``, which has the shape [..., in, out]."""
    weight, pictures = read(chosen, 2)
    value, rows = tracer.settler.settle(x)
    _check(tracer, pictures[..., None], rows, value)
    turned = weight.swapaxes(1, 2)
    hints = (*chosen.hints, name)
    result = emit(
        tracer.builder, "TaskLinear", value, turned, np.zeros(turned.shape[:2]),
        chosen.base.meta["task"], source=tracer.settler.source, hints=hints,
    )  # fmt: skip
    return tracer.settler.view_of_rows(result, rows)


def add_selected(tracer: Tracer, x: View, chosen: View) -> View:
    """``x + chosen``: the bias of a task goes into the linear layer that made ``x``."""
    if is_selected(x):
        raise Unfit("it adds constants of tasks", _FIX)
    shape = np.broadcast_shapes(x.shape, chosen.shape)
    chosen = chosen.moved(lambda array: np.broadcast_to(array, shape))
    bias, pictures = read(chosen, 1)
    value, rows = tracer.settler.settle(x.moved(lambda array: np.broadcast_to(array, shape)))
    _check(tracer, pictures, rows, value)
    node, task = value.producer(), chosen.base.meta["task"]
    if node is None or node.op_type not in ("Linear", "TaskLinear"):
        raise Unfit("it adds a constant of a task to something else than a linear layer", _FIX)
    operand, weight, old = (v for v in node.inputs[:3] if v is not None)
    matrix = array_of(weight)
    if node.op_type == "Linear":
        matrix = np.broadcast_to(matrix, (len(bias), *matrix.shape))
    elif node.inputs[3] is not task or len(matrix) != len(bias):
        raise Unfit("it combines constants of different tasks", _FIX)
    result = emit(
        tracer.builder, "TaskLinear", operand, matrix, array_of(old) + bias, task,
        source=tracer.settler.source, hints=(*hints_of(value), *chosen.hints),
    )  # fmt: skip
    return tracer.settler.view_of_rows(result, rows)
