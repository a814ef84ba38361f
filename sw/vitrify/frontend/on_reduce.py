"""Sums, means and largest values over any axes, and what they are made into."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from .arrange import as_tokens
from .layout import (
    CHANNEL,
    beside_images,
    image_axis,
    kinds,
    layout_of,
    sizes,
    split_merged,
)
from .trace import Tracer, attribute, constant, handles
from .values import Traced, Unfit, View


def axes_of(node: ir.Node, inputs: list[Traced | None], rank: int) -> tuple[int, ...]:
    """The axes that a reduction runs over: an attribute or an input, all without either."""
    given = attribute(node, "axes", None)
    if len(inputs) > 1 and inputs[1] is not None:
        given = constant(inputs[1], "axes").array.ravel().tolist()
    if not given:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in given))


def shaped(view: View, old: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> View:
    """A result with the reduced axes of size one, or without them."""
    shape = tuple(
        1 if axis in axes else size for axis, size in enumerate(old) if keep or axis not in axes
    )
    return view.moved(lambda array: array.reshape(shape))


def total(tracer: Tracer, view: View, axes: tuple[int, ...], *, mean: bool) -> View:
    """The sum or the mean over axes, which stay with size one."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(view.shape))
    view, parts = split_merged(as_tokens(tracer.settler, view))
    axes = tuple(new for axis in axes for new in parts[axis])

    def work(view: View, axes: tuple[int, ...]) -> View:
        return _total(tracer, view, axes, mean)

    made = beside_images(work, view, axes, tracer.batch)
    return made.moved(lambda array: array.reshape(shape))


def _total(tracer: Tracer, view: View, axes: tuple[int, ...], mean: bool) -> View:
    if image_axis(view, tracer.batch) in axes and tracer.batch > 1:
        raise Unfit("it adds up the images of a batch")
    found = kinds(view)
    channels = tuple(axis for axis in axes if found[axis] == CHANNEL)
    if channels:
        view = _over_channels(tracer, view, found, channels, mean)
    rest = tuple(axis for axis in axes if axis not in channels and view.shape[axis] > 1)
    return _over_rows(tracer, view, rest, mean) if rest else view


def _over_channels(
    tracer: Tracer, view: View, found: list[str], axes: tuple[int, ...], mean: bool
) -> View:
    first = image_axis(view, tracer.batch)
    layout = layout_of(found, view.shape, first)
    kept = tuple(axis for axis in layout.channels if axis not in axes)
    order = (*layout.rows, *kept, *axes)
    size = math.prod(view.shape[axis] for axis in axes)
    heads = math.prod(view.shape[axis] for axis in kept)
    rows = [view.shape[axis] for axis in layout.rows]
    lined = view.moved(lambda array: array.transpose(order).reshape(*rows, heads * size))
    weight = np.kron(np.eye(heads), np.full((1, size), 1.0 / size if mean else 1.0))
    made = tracer.settler.linear(lined, weight, ())
    form = [1 if axis in axes else view.shape[axis] for axis in order]
    return made.moved(lambda array: array.reshape(form).transpose(np.argsort(order)))


def _over_rows(tracer: Tracer, view: View, axes: tuple[int, ...], mean: bool) -> View:
    settler, batch = tracer.settler, tracer.batch
    first = image_axis(view, batch)
    layout = layout_of(kinds(view), view.shape, first, axes)
    groups = math.prod(view.shape[axis] for axis in layout.rows[: -len(axes)]) // batch
    size = math.prod(view.shape[axis] for axis in axes)
    value = settler.exact(layout.lined(view))
    if groups == 1:
        made = settler.emit("MeanPool", value, start=0, end=size)
        factor = 1.0 if mean else float(size)
    else:
        matrix = np.full((1, 1, size), 1.0 / size if mean else 1.0)
        made = settler.emit("Mix", value, matrix, np.zeros(1), heads=1, groups=groups)
        factor = 1.0
    result = settler.view_of_rows(made, np.arange(batch * sizes(made)[0]))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(view.shape))
    back = layout_of(kinds(view), shape, first, axes)
    result = result.moved(back.back)
    return result if factor == 1.0 else result.affine(factor, 0.0)


def _squared(tracer: Tracer, node: ir.Node, value: Traced) -> Traced:
    from .on_elementwise import binary, step

    return binary(tracer, step("Mul", node), [value, value])[0]


@handles("ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceL1")
def add_up(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Sums, of squares or absolute values too."""
    from .on_elementwise import function, step

    value = inputs[0]
    if value is None:
        raise Unfit("it has no input")
    if node.op_type in ("ReduceSumSquare", "ReduceL2"):
        value = _squared(tracer, node, value)
    elif node.op_type == "ReduceL1":
        value = function(tracer, step("Abs", node), [value])[0]
    view = tracer.view(value)
    axes = axes_of(node, inputs, len(view.shape))
    result: Traced = total(tracer, view, axes, mean=False)
    assert isinstance(result, View), "sums are views"
    result = shaped(result, view.shape, axes, bool(attribute(node, "keepdims", 1)))
    if node.op_type == "ReduceL2":
        return function(tracer, step("Sqrt", node), [result])
    return [result]


@handles("ReduceMax")
def largest(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The largest over axes that run over rows: a pool whose window is one line of a map."""
    view = as_tokens(tracer.settler, tracer.view(inputs[0]))
    axes = axes_of(node, inputs, len(view.shape))
    found, first = kinds(view), image_axis(view, tracer.batch)
    over_channels = [axis for axis in axes if found[axis] == CHANNEL]
    if over_channels or first in axes:
        raise Unfit("it takes the largest of several channels")
    layout = layout_of(found, view.shape, first, axes)
    size = math.prod(view.shape[axis] for axis in axes)
    value = tracer.settler.exact(layout.lined(view))
    groups = sizes(value)[0] // size
    made = tracer.settler.emit(
        "Pool", value, kind="max", map=[groups, size], kernel=[1, size], strides=[1, size],
        pads=[0] * 4, count_include_pad=0,
    )  # fmt: skip
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(view.shape))
    back = layout_of(found, shape, first, axes)
    rows = np.arange(tracer.batch * groups)
    result = tracer.settler.view_of_rows(made, rows).moved(back.back)
    return [shaped(result, view.shape, axes, bool(attribute(node, "keepdims", 1)))]


def group_norm(
    tracer: Tracer, view: View, axes: tuple[int, ...], epsilon: float
) -> View:
    """``view`` minus mean over deviation, both over ``axes``."""
    shape = view.shape
    view, parts = split_merged(as_tokens(tracer.settler, view))
    axes = tuple(new for axis in axes for new in parts[axis])

    def work(view: View, axes: tuple[int, ...]) -> View:
        return _group_norm(tracer, view, axes, epsilon)

    made = beside_images(work, view, axes, tracer.batch)
    return made.moved(lambda array: array.reshape(shape))


def _group_norm(
    tracer: Tracer, view: View, axes: tuple[int, ...], epsilon: float
) -> View:
    settler, batch = tracer.settler, tracer.batch
    found, first = kinds(view), image_axis(view, batch)
    channels = tuple(axis for axis in axes if found[axis] == CHANNEL)
    rows = tuple(axis for axis in axes if axis not in channels and view.shape[axis] > 1)
    if first in rows and batch > 1:
        raise Unfit("it normalises over the images of a batch")
    base = layout_of(found, view.shape, first, rows)
    kept = tuple(axis for axis in base.channels if axis not in channels)
    layout = type(base)(base.shape, base.rows, (*kept, *channels))
    heads = math.prod(view.shape[axis] for axis in kept)
    groups = math.prod(view.shape[axis] for axis in base.rows[: len(base.rows) - len(rows)])
    groups //= batch
    ones, zeros = np.ones(layout.width), np.zeros(layout.width)
    lined = layout.lined(view)
    if not rows:
        value, places = settler.settle(lined)
        name = "LayerNorm" if heads == 1 else "HeadNorm"
        more = {} if heads == 1 else {"axis": "channels", "groups": heads}
        made = settler.emit(name, value, ones, zeros, epsilon=epsilon, **more)
        return settler.view_of_rows(made, places).moved(layout.back)
    value = settler.exact(lined)
    if not channels or heads == layout.width:
        made = settler.emit(
            "HeadNorm", value, ones, zeros, axis="tokens", groups=groups, epsilon=epsilon
        )
    elif groups == 1:
        made = settler.emit("GroupNorm", value, ones, zeros, groups=heads, epsilon=epsilon)
    else:
        raise Unfit("it normalises over a part of the rows and of the channels of an image")
    places = np.arange(batch * sizes(made)[0])
    lead = [view.shape[axis] for axis in layout.rows]
    return settler.view_of_rows(made, places.reshape(lead)).moved(layout.back)


@handles("InstanceNormalization")
def instance_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Over all axes but images and channels; exporters make GroupNorm of it, too."""
    view = tracer.view(inputs[0])
    form = (-1, *(1,) * (len(view.shape) - 2))
    gamma, beta = constant(inputs[1], "scale"), constant(inputs[2], "bias")
    axes = tuple(range(2, len(view.shape)))
    made = group_norm(tracer, view, axes, attribute(node, "epsilon", 1e-5))
    return [made.affine(gamma.array.reshape(form), beta.array.reshape(form), gamma.name)]


@handles("GroupNormalization")
def onnx_group_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The operator of opset 18 (parameters by group) and 21 (by channel)."""
    view = tracer.view(inputs[0])
    groups, channels = attribute(node, "num_groups", 1), view.shape[1]
    split = (view.shape[0], groups, channels // groups, *view.shape[2:])
    apart = view.moved(lambda array: array.reshape(split))
    axes = tuple(range(2, len(split)))
    made = group_norm(tracer, apart, axes, attribute(node, "epsilon", 1e-5))
    made = made.moved(lambda array: array.reshape(view.shape))
    form = (-1, *(1,) * (len(view.shape) - 2))
    gamma, beta = (
        np.repeat(value.array, channels // value.array.size).reshape(form)
        for value in (constant(inputs[1], "scale"), constant(inputs[2], "bias"))
    )
    return [made.affine(gamma, beta, constant(inputs[1], "scale").name)]


@handles("RMSNormalization", "SimplifiedLayerNormalization")
def rms_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Over the last axes."""
    view, gamma = tracer.view(inputs[0]), constant(inputs[1], "scale")
    rank = len(view.shape)
    first = attribute(node, "axis", -1) % rank
    if first != rank - 1:
        raise Unfit("it normalises over more than the last axis")
    found = kinds(view)
    layout = layout_of(found, view.shape, image_axis(view, tracer.batch))
    if found[-1] != CHANNEL:
        raise Unfit("it normalises over something else than channels")
    heads = layout.width // view.shape[-1]
    value, rows = tracer.settler.settle(layout.lined(view))
    made = tracer.settler.emit(
        "RMSNorm", value, np.tile(np.broadcast_to(gamma.array.ravel(), view.shape[-1]), heads),
        axis="channels", groups=heads, epsilon=attribute(node, "epsilon", 1e-5),
        hints=(gamma.name,),
    )  # fmt: skip
    return [tracer.settler.view_of_rows(made, rows).moved(layout.back)]

