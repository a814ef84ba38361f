"""Operators that only move elements: they run on the indices of a view."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .mixed import Mixture, Stack
from .task import is_task, select
from .trace import Tracer, attribute, handles
from .values import CONSTANT, Const, Elementwise, Scores, Traced, Unfit, View


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
        if isinstance(inputs[0], Elementwise):
            # a comparison becomes a factor
            samples = {root: array * 1.0 for root, array in inputs[0].samples.items()}
            return [Elementwise(inputs[0].shape, samples, node, [inputs[0]])]
    return [inputs[0]]


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
        return [_reshape_scores(tracer, node, inputs[0], others)]
    view = tracer.view(inputs[0])
    index = tracer.execute(node, [view.index, *others])
    mul = None if view.mul is None else tracer.execute(node, [view.mul, *others])
    add = None if view.add is None else tracer.execute(node, [view.add, *others])
    return [
        View(view.base, part, mul[i] if mul else None, add[i] if add else None, view.hints)
        for i, part in enumerate(index)
    ]


def _reshape_scores(
    tracer: Tracer, node: ir.Node, scores: Scores, others: list[np.ndarray | None]
) -> Scores:
    """Scores may be regrouped over batch and heads, no more."""
    numbers = np.arange(np.prod(scores.shape)).reshape(scores.shape)
    moved = tracer.execute(node, [numbers, *others])[0]
    in_order = np.array_equal(moved.ravel(), numbers.ravel())
    if not in_order or moved.shape[-2:] != scores.shape[-2:]:
        raise Unfit("it rearranges attention scores")
    return Scores(scores.q, scores.k, moved.shape, scores.scale, scores.normalised)


@handles("Concat")
def concat(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Constants and parts of one tensor, side by side."""
    parts = [
        value if isinstance(value, Const) else tracer.view(value)
        for value in inputs
        if value is not None
    ]
    views = [part for part in parts if isinstance(part, View)]
    base = views[0].base
    if any(view.base is not base for view in views):
        return [_stack(node, parts)]
    index, mul, add = [], [], []
    hints: tuple[str, ...] = ()
    for part in parts:
        if isinstance(part, Const):
            index.append(np.full(part.shape, CONSTANT, np.int32))
            mul.append(np.ones(part.shape))
            add.append(part.array.astype(np.float64))
            hints = (*hints, part.name)
        else:
            index.append(part.index)
            mul.append(np.ones(part.shape) if part.mul is None else part.mul)
            add.append(np.zeros(part.shape) if part.add is None else part.add)
            hints = (*hints, *part.hints)
    where, mul_all, add_all = (tracer.execute(node, arrays)[0] for arrays in (index, mul, add))
    scaled = any(view.mul is not None for view in views)
    shifted = any(view.add is not None for view in views) or len(views) < len(parts)
    return [View(base, where, mul_all if scaled else None, add_all if shifted else None, hints)]


def _stack(node: ir.Node, parts: list[Const | View]) -> Stack:
    """Different tensors, each one entry of the axis that they are joined along."""
    axis = attribute(node, "axis", 0) % len(parts[0].shape)
    views = [part for part in parts if isinstance(part, View) and part.shape[axis] == 1]
    if len(views) != len(parts):
        raise Unfit("it joins two different tensors")
    return Stack([view.moved(lambda array: array.squeeze(axis)) for view in views], axis, node)
