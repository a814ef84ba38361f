"""Matrix products with constants, convolutions over patches, normalisation, pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .mix import mix, runs_over_rows
from .mixed import Gating, Stack
from .on_experts import weigh
from .on_map import convolve
from .on_reduce import axes_of, group_norm, shaped, total
from .product import multiply_matrices, product
from .stack import expert_products, weighed_sum
from .task import add_selected, is_selected, task_linear
from .trace import Tracer, attribute, constant, handles
from .values import Const, Scores, Traced, Unfit, View


def weighted(
    tracer: Tracer, node: ir.Node, view: View, weight: Const, array: np.ndarray, bias: Const | None
) -> View:
    """``view @ array.T + bias``, with names to call it after."""
    result = tracer.settler.linear(view, array, (weight.name, node.name or ""))
    return result if bias is None else result.affine(1.0, bias.array.astype(np.float64), bias.name)


@handles("MatMul")
def matmul(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A linear layer (of a task, of experts), or one of the two products of attention."""
    from .on_attention import attend

    x, y = inputs
    if x is None or y is None:
        raise Unfit("it lacks an input")
    if isinstance(x, Scores) and x.normalised:
        return [attend(tracer, x, y if isinstance(y, Const) else tracer.view(y))]
    if isinstance(y, Const):
        if y.array.ndim > 2 and not _plain(y):
            return [expert_products(tracer, node, x, y)]
        array = y.array.reshape(y.shape[-2:]) if y.array.ndim > 2 else y.array
        if array.ndim != 2:
            return [_by_vector(tracer, node, tracer.view(x), y)]
        return [weighted(tracer, node, tracer.view(x), y, array.T, None)]
    if isinstance(x, Const):
        return [_constant_first(tracer, node, x, tracer.view(y))]
    if isinstance(x, Gating) and isinstance(y, Stack):
        return [weighed_sum(tracer, x, y)]
    if isinstance(x, Gating) and x.shape[-1] == 1 and y.shape[-2] == 1:
        return [weigh(tracer, x, y)]
    operand = tracer.view(y)
    if is_selected(operand):
        return [task_linear(tracer, tracer.view(x), operand, node.name or "")]
    return [multiply_matrices(tracer, tracer.view(x), operand)]


handles("MatMul", kind=Stack)(matmul)


def _by_vector(tracer: Tracer, node: ir.Node, x: View, y: Const) -> View:
    """A product with a constant vector: a linear layer of one channel, without its axis."""
    if y.array.ndim != 1:
        raise Unfit("its constant is no single matrix")
    return weighted(tracer, node, x, y, y.array[None], None).moved(lambda array: array[..., 0])


def _constant_first(tracer: Tracer, node: ir.Node, x: Const, y: View) -> View | Scores:
    """Constant queries times keys, or a constant matrix over tokens."""
    if len(x.shape) < 2 or len(y.shape) < 2:
        raise Unfit("its constant is no single matrix")
    if not runs_over_rows(y, -2):
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        wide = (*lead, *y.shape[-2:])
        keys = y.moved(lambda array: np.broadcast_to(array, wide).swapaxes(-1, -2))
        queries = Const(np.broadcast_to(x.array, (*lead, *x.shape[-2:])), x.name)
        return Scores(queries, keys, (*lead, x.shape[-2], y.shape[-1]))
    if not _plain(x):
        return product(tracer, x, y, "nn")
    matrix = x.array.reshape(x.shape[-2:])
    return mix(tracer.settler, y, -2, matrix, (x.name, node.name or ""))


def _plain(value: Const) -> bool:
    return all(size == 1 for size in value.shape[:-2])


@handles("Gemm")
def gemm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A linear layer."""
    view = tracer.view(inputs[0])
    if attribute(node, "transA", 0):
        view = view.moved(np.transpose)
    if isinstance(inputs[1], View) and is_selected(inputs[1]):
        return [_task_gemm(tracer, node, view, inputs[1:])]
    weight = constant(inputs[1], "weight")
    array = weight.array if attribute(node, "transB", 0) else weight.array.T
    result = weighted(tracer, node, view, weight, array * attribute(node, "alpha", 1.0), None)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = constant(inputs[2], "bias")
        shift = bias.array.astype(np.float64) * attribute(node, "beta", 1.0)
        result = result.affine(1.0, shift, bias.name)
    return [result]


def _task_gemm(tracer: Tracer, node: ir.Node, view: View, inputs: list[Traced | None]) -> View:
    """A linear layer of one task for all the pictures."""
    chosen = tracer.view(inputs[0]).affine(attribute(node, "alpha", 1.0), 0.0)
    if attribute(node, "transB", 0):
        chosen = chosen.moved(np.transpose)
    result = task_linear(tracer, view, chosen, node.name or "")
    if len(inputs) < 2 or inputs[1] is None:
        return result
    beta = attribute(node, "beta", 1.0)
    if isinstance(inputs[1], Const):
        return result.affine(1.0, inputs[1].array.astype(np.float64) * beta, inputs[1].name)
    return add_selected(tracer, result, tracer.view(inputs[1]).affine(beta, 0.0))


def _padding(node: ir.Node, image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether a convolution pads."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return any(size % step for size, step in zip(image, kernel, strict=True))
    return any(attribute(node, "pads", ()))


@handles("Conv")
def conv(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Patches that do not overlap and a linear layer, or a convolution of any other kind."""
    if not isinstance(inputs[1], Const):
        return convolve(tracer, node, inputs)
    view, weight = tracer.view(inputs[0]), inputs[1]
    kernel = weight.shape[2:]
    if len(view.shape) != 2 + len(kernel):
        raise Unfit("its input and its weight differ in rank")
    strides = tuple(attribute(node, "strides", (1,) * len(kernel)))
    dilated = any(step != 1 for step in attribute(node, "dilations", ()))
    tiled = (
        strides == kernel
        and not (dilated or attribute(node, "group", 1) != 1)
        and not _padding(node, view.shape[2:], kernel)
        and not any(size % step for size, step in zip(view.shape[2:], kernel, strict=True))
    )
    if not tiled or (view.base is not tracer.image and max(kernel, default=1) > 1):
        return convolve(tracer, node, inputs)
    grid = tuple(size // step for size, step in zip(view.shape[2:], kernel, strict=True))
    axes = len(kernel)

    def cut(array: np.ndarray) -> np.ndarray:
        pairs = [size for pair in zip(grid, kernel, strict=True) for size in pair]
        split = array.reshape(*view.shape[:2], *pairs)
        order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
        return split.transpose(order).reshape(view.shape[0], int(np.prod(grid)), -1)

    bias = constant(inputs[2], "bias") if len(inputs) > 2 and inputs[2] is not None else None
    array = weight.array.reshape(weight.shape[0], -1)
    rows = weighted(tracer, node, view.moved(cut), weight, array, bias)
    out = (view.shape[0], weight.shape[0], *grid)
    return [rows.moved(lambda array: array.swapaxes(1, 2).reshape(out))]


@handles("LayerNormalization")
def layer_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Over the last axis."""
    view, gamma = tracer.view(inputs[0]), constant(inputs[1], "scale")
    axis, epsilon = attribute(node, "axis", -1), attribute(node, "epsilon", 1e-5)
    beta = constant(inputs[2], "bias") if len(inputs) > 2 and inputs[2] is not None else None
    rank = len(view.shape)
    if axis in (-1, rank - 1) and tracer.settler.holds_rows(view, alone=True):
        return [tracer.settler.layer_norm(view, gamma, beta, epsilon)]
    made = group_norm(tracer, view, tuple(range(axis % rank, rank)), epsilon)
    shift = 0.0 if beta is None else beta.array.astype(np.float64)
    return [made.affine(gamma.array.astype(np.float64), shift, gamma.name)]


@handles("ReduceMean", "GlobalAveragePool")
def mean(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The mean over tokens, wherever the token axes are; or over anything else."""
    view = tracer.view(inputs[0])
    if node.op_type == "GlobalAveragePool":
        axes, keep = tuple(range(2, len(view.shape))), True
    else:
        axes = axes_of(node, inputs, len(view.shape))
        keep = bool(attribute(node, "keepdims", 1))
    pooled = _mean_of_tokens(tracer, view, axes)
    result = total(tracer, view, axes, mean=True) if pooled is None else pooled
    return [shaped(result, view.shape, axes, keep)]


def _mean_of_tokens(tracer: Tracer, view: View, axes: tuple[int, ...]) -> View | None:
    """The mean over consecutive tokens of an image, all channels; ``None`` if it is another."""
    rank = len(view.shape)
    rest = [axis for axis in range(rank) if axis not in axes and view.shape[axis] != 1]
    if not rest:
        return None
    *lead, channel = rest
    if not axes or np.prod([view.shape[axis] for axis in lead], dtype=int) != tracer.batch:
        return None
    others = [axis for axis in range(rank) if axis not in axes and axis not in rest]

    def line_up(array: np.ndarray) -> np.ndarray:
        order = (*lead, *axes, *others, channel)
        return array.transpose(order).reshape(tracer.batch, -1, view.shape[channel])

    try:
        value, rows = tracer.settler.settle(view.moved(line_up), strict=True)
    except Unfit:
        return None
    shape = shape_of(value)
    start, count = int(rows[0, 0]), rows.shape[1]
    tokens = int(shape[1]) if len(shape) == 3 else 1
    expected = np.arange(tracer.batch)[:, None] * tokens + start + np.arange(count)
    if len(shape) != 3 or not np.array_equal(rows, expected):
        return None
    pooled = tracer.settler.emit("MeanPool", value, start=start, end=start + count)
    return tracer.settler.view_of_rows(pooled, np.arange(tracer.batch))


def _placed(tracer: Tracer, view: View) -> View:
    """``view`` [N, C, ...] with its positions added: what is scaled next is the sum of them."""
    try:
        tracer.settler.channelwise(view)
        return view
    except Unfit:
        pass
    try:
        lined = view.moved(lambda array: np.moveaxis(array, 1, -1))
        value, rows = tracer.settler.settle(lined, strict=True)
    except Unfit:
        return view
    placed = tracer.settler.view_of_rows(value, rows)
    return placed.moved(lambda array: np.moveaxis(array, -1, 1))


@handles("BatchNormalization")
def batch_norm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """At inference a scale and a shift per channel, the second axis."""
    view = _placed(tracer, tracer.view(inputs[0]))
    arrays = [value.array.astype(np.float64) for value in inputs[1:] if isinstance(value, Const)]
    if attribute(node, "training_mode", 0):
        raise Unfit(
            "it normalises by the batch (training_mode is 1)", "export the model in inference mode"
        )
    if len(arrays) != 4:
        raise Unfit("its parameters are no constants")
    gamma, beta, mean, variance = arrays
    mul = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    form = (-1, *(1,) * (len(view.shape) - 2))
    return [view.affine(mul.reshape(form), (beta - mean * mul).reshape(form))]
