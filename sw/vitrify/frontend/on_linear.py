"""Matrix products with constants, convolutions over patches, normalisation, pooling."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

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
    """A linear layer, or one of the two products of attention."""
    from .on_attention import attend, score

    x, y = inputs
    if isinstance(x, Scores):
        return [attend(tracer, x, tracer.view(y))]
    if isinstance(y, Const):
        array = y.array.reshape(y.shape[-2:]) if y.array.ndim > 2 and _plain(y) else y.array
        if array.ndim != 2:
            raise Unfit("its constant is no single matrix")
        return [weighted(tracer, node, tracer.view(x), y, array.T, None)]
    if isinstance(x, Const):
        raise Unfit("it mixes tokens by a constant matrix", "use attention to mix tokens")
    return [score(tracer.view(x), tracer.view(y))]


def _plain(value: Const) -> bool:
    return all(size == 1 for size in value.shape[:-2])


@handles("Gemm")
def gemm(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A linear layer."""
    view, weight = tracer.view(inputs[0]), constant(inputs[1], "weight")
    if attribute(node, "transA", 0):
        view = view.moved(np.transpose)
    array = weight.array if attribute(node, "transB", 0) else weight.array.T
    result = weighted(tracer, node, view, weight, array * attribute(node, "alpha", 1.0), None)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = constant(inputs[2], "bias")
        shift = bias.array.astype(np.float64) * attribute(node, "beta", 1.0)
        result = result.affine(1.0, shift, bias.name)
    return [result]


def _padding(node: ir.Node, image: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether a convolution pads."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return any(size % step for size, step in zip(image, kernel, strict=True))
    return any(attribute(node, "pads", ()))


@handles("Conv")
def conv(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Non-overlapping patches and a linear layer."""
    view, weight = tracer.view(inputs[0]), constant(inputs[1], "weight")
    kernel = weight.shape[2:]
    fix = "export a vision transformer that embeds non-overlapping patches by one convolution"
    if len(view.shape) != 2 + len(kernel):
        raise Unfit("its input and its weight differ in rank", fix)
    strides = tuple(attribute(node, "strides", (1,) * len(kernel)))
    dilated = any(step != 1 for step in attribute(node, "dilations", ()))
    if strides != kernel or dilated or attribute(node, "group", 1) != 1:
        raise Unfit(f"its {kernel} kernel with strides {strides} overlaps, skips or groups", fix)
    if _padding(node, view.shape[2:], kernel):
        raise Unfit("it pads its input", fix)
    if any(size % step for size, step in zip(view.shape[2:], kernel, strict=True)):
        raise Unfit(f"its patches {kernel} do not tile an input of {view.shape[2:]}", fix)
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
    if attribute(node, "axis", -1) not in (-1, len(view.shape) - 1):
        raise Unfit("it normalises over more than the last axis")
    beta = constant(inputs[2], "bias") if len(inputs) > 2 and inputs[2] is not None else None
    return [tracer.settler.layer_norm(view, gamma, beta, attribute(node, "epsilon", 1e-5))]


@handles("ReduceMean", "GlobalAveragePool")
def mean(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The mean over tokens, wherever the token axes are."""
    view = tracer.view(inputs[0])
    rank = len(view.shape)
    keep = True
    if node.op_type == "GlobalAveragePool":
        axes = tuple(range(2, rank))
    else:
        given = attribute(node, "axes", None)
        if len(inputs) > 1 and inputs[1] is not None:
            given = constant(inputs[1], "axes").array.tolist()
        axes = tuple(sorted(int(axis) % rank for axis in given or ()))
        keep = bool(attribute(node, "keepdims", 1))
    rest = [axis for axis in range(rank) if axis not in axes and view.shape[axis] != 1]
    if view.shape[0] == 1 and 0 not in axes:
        rest.insert(0, 0)
    fix = "pool over tokens, normalise over channels with LayerNormalization"
    if not axes or 0 in axes or len(rest) != 2:
        raise Unfit("it takes a mean over something else than the tokens", fix)
    channels = view.shape[rest[1]]
    others = [axis for axis in range(rank) if axis not in axes and axis not in rest]

    def line_up(array: np.ndarray) -> np.ndarray:
        order = (0, *axes, *others, rest[1])
        return array.transpose(order).reshape(view.shape[0], -1, channels)

    value, rows = tracer.settler.settle(view.moved(line_up))
    shape = shape_of(value)
    start, count = int(rows[0, 0]), rows.shape[1]
    total = int(shape[1]) if len(shape) == 3 else 1
    expected = np.arange(tracer.batch)[:, None] * total + start + np.arange(count)
    if len(shape) != 3 or not np.array_equal(rows, expected):
        raise Unfit("it takes a mean over something else than consecutive tokens", fix)
    pooled = tracer.settler.emit("MeanPool", value, start=start, end=start + count)
    result = tracer.settler.view_of_rows(pooled, np.arange(tracer.batch))
    kept = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(view.shape)
        if keep or axis not in axes
    )
    return [result.moved(lambda array: array.reshape(kept))]
