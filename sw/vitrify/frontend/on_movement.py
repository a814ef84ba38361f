"""Operators that only move elements: they run on the indices of a view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from .grouped import axis_of
from .joining import concatenated
from .mixed import Mixture, Stack
from .product import as_view, regrouped
from .task import is_task, select
from .trace import Tracer, attribute, constant, handles
from .values import CONSTANT, Const, Elementwise, Grouped, Scores, Traced, Unfit, View


@handles("Identity", "Dropout", "Cast", "CastLike")
def same(_tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Pass on: everything is computed in float32, and calibration chooses its own steps."""
    if inputs[0] is None:
        raise Unfit("it has no input")
    if node.op_type == "Cast":
        target = ir.DataType(node.attributes["to"].as_int())
        number = isinstance(inputs[0], View) and is_task(inputs[0])
        if not target.is_floating_point() and not number:
            raise Unfit(f"it turns activations into {target.name}")
        # a comparison becomes a factor
        if isinstance(inputs[0], Elementwise):
            return [_numbers(node, inputs[0])]
        if isinstance(inputs[0], Grouped):
            return [replace(inputs[0], view=None, functions=[
                _numbers(node, each) if isinstance(each, Elementwise) else each
                for each in inputs[0].functions
            ])]
    return [inputs[0]]


def _numbers(node: ir.Node, value: Elementwise) -> Elementwise:
    samples = {root: array * 1.0 for root, array in value.samples.items()}
    return Elementwise(value.shape, samples, node, [value])


@handles("Shape", "Size", kind=Stack)
@handles("Shape", "Size", kind=Mixture)
@handles("Shape", "Size")
def shape(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A constant: every shape is known while tracing."""
    if inputs[0] is None:
        raise Unfit("it has no input")
    dummy = np.broadcast_to(np.float32(0), inputs[0].shape)
    return [Const(tracer.execute(node, [dummy])[0])]


@handles("Gather", "GatherND")
def gather(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Data movement, or the choice of a task."""
    table, index = inputs
    if not (isinstance(table, Const) and isinstance(index, View) and is_task(index)):
        return move(tracer, node, inputs)
    if node.op_type == "GatherND":
        if attribute(node, "batch_dims", 0) or index.shape[-1] != 1:
            raise Unfit("it uses task numbers for more than one axis")
        return [select(table, index.moved(lambda array: array[..., 0]))]
    axis, rank = attribute(node, "axis", 0), len(index.shape)
    chosen = select(Const(np.moveaxis(table.array, axis, 0), table.name), index)
    axis %= table.array.ndim
    # the axes of the index stand where the axis of the tasks stood
    order = [*range(rank, rank + axis), *range(rank), *range(rank + axis, len(chosen.shape))]
    return [chosen.moved(lambda array: array.transpose(order))]


@handles(
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split",
    "GatherElements", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
def move(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Run the node on the index, the scale and the shift."""
    others = []
    for value in inputs[1:]:
        if value is not None and not isinstance(value, Const):
            raise Unfit("where it moves elements to depends on the image")
        others.append(None if value is None else value.array)
    if isinstance(inputs[0], Scores):
        return _move_scores(tracer, node, inputs[0], others)
    if isinstance(inputs[0], Grouped) and inputs[0].view is None:
        whiches = tracer.execute(node, [inputs[0].which, *others])
        if None not in map(axis_of, whiches):
            roots = move_view(tracer, node, inputs[0].root, others)
            return [
                Grouped(root, which, inputs[0].functions)
                for root, which in zip(roots, whiches, strict=True)
            ]
    return [*move_view(tracer, node, tracer.view(inputs[0]), others)]


def _move_scores(
    tracer: Tracer, node: ir.Node, scores: Scores, others: list[np.ndarray | None]
) -> list[Traced]:
    """Scores may be moved about among batch, windows and heads; otherwise they are a tensor."""
    numbers = np.arange(np.prod(scores.shape), dtype=np.int32).reshape(scores.shape)
    block = scores.shape[-2] * scores.shape[-1]
    made: list[Traced] = []
    for moved in tracer.execute(node, [numbers, *others]):
        kept = moved.ndim >= 2 and moved.shape[-2:] == scores.shape[-2:]
        lead = moved[..., 0, 0] // block if kept and moved.size else moved
        whole = numbers.reshape(-1, *scores.shape[-2:])
        if not kept or not np.array_equal(moved, whole[lead]):
            break
        made.append(regrouped(scores, lead))
    else:
        return made
    turned = node.op_type == "Transpose" and _keys_first(node, len(scores.shape))
    view = as_view(tracer, scores, turned)
    return [*move_view(tracer, node, view, others)]


def _keys_first(node: ir.Node, rank: int) -> bool:
    order = list(attribute(node, "perm", None) or range(rank)[::-1])
    return order.index(rank - 1) < order.index(rank - 2)


def move_view(
    tracer: Tracer, node: ir.Node, view: View, others: list[np.ndarray | None]
) -> list[View]:
    """Run the node on the index, the scale and the shift."""
    index = tracer.execute(node, [view.index, *others])
    mul = None if view.mul is None else tracer.execute(node, [view.mul, *others])
    add = None if view.add is None else tracer.execute(node, [view.add, *others])
    return [
        View(view.base, part, mul[i] if mul else None, add[i] if add else None, view.hints)
        for i, part in enumerate(index)
    ]


@handles("Pad")
def pad(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Constants around a tensor, or its own elements again."""
    others = [None if value is None else constant(value, "pad").array for value in inputs[1:]]
    if not np.any(others[0]):
        return [inputs[0] if inputs[0] is not None else tracer.view(None)]
    view = tracer.view(inputs[0])
    numbers = np.arange(1, view.index.size + 1, dtype=np.float64).reshape(view.shape)
    fill = others[1] if len(others) > 1 and others[1] is not None and others[1].size else None
    number = 0.0 if fill is None else float(fill.ravel()[0])
    quiet = [others[0], None if fill is None else np.zeros(1), *others[2:]]
    return [bordered(view, tracer.execute(node, [numbers, *quiet])[0].astype(np.int64), number)]


def bordered(view: View, place: np.ndarray, number: float) -> View:
    """The elements ``place`` of ``view``, counted from 1; ``number`` where it is 0."""
    outside = place == 0
    inner = view.moved(lambda array: array.reshape(-1)[np.maximum(place - 1, 0)])
    if not outside.any():
        return inner
    index = np.where(outside, CONSTANT, inner.index).astype(np.int32)
    mul = None if inner.mul is None else np.where(outside, 1.0, inner.mul)
    add = inner.add
    if number or add is not None:
        add = np.where(outside, number, 0.0 if add is None else add)
    return View(view.base, index, mul, add, view.hints)


@handles("Concat")
def concat(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Constants and tensors, side by side."""
    parts = [
        value if isinstance(value, Const) else tracer.view(value)
        for value in inputs
        if value is not None
    ]
    views = [part for part in parts if isinstance(part, View)]
    axis = attribute(node, "axis", 0) % len(parts[0].shape)
    different = len({view.base for view in views}) > 1 and len(views) == len(parts)
    if different and all(part.shape[axis] == 1 for part in parts):
        # they may be the results of experts
        thin = [view.moved(lambda array: array.squeeze(axis)) for view in views]
        return [Stack(thin, axis, node)]
    return [concatenated(tracer, parts, axis)]
