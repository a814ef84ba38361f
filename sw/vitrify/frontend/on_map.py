"""Convolutions and pooling of the image and of maps, and resizing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .layout import sizes
from .mix import mix, runs_over_rows
from .own_weights import convolve_by
from .trace import Tracer, attribute, constant, handles
from .values import CONSTANT, Const, Elementwise, Traced, Unfit, View

_FIX = "export convolutions and pooling of one or two dimensions"


def as_map(view: View) -> View:
    """[N, C, L] and [N, C, H, W] as [N, C, H, W]."""
    if len(view.shape) == 3:
        return view.moved(lambda array: array[:, :, None])
    if len(view.shape) != 4:
        raise Unfit(f"it slides over {len(view.shape) - 2} dimensions", _FIX)
    return view


def _two(given: list[int] | tuple[int, ...] | None, default: int, rank: int) -> list[int]:
    values = [int(value) for value in given] if given else [default] * rank
    return values if rank == 2 else [1 if default else 0, *values]


def window(
    node: ir.Node, size: tuple[int, int], kernel: list[int], rank: int
) -> tuple[list[int], list[int], list[int]]:
    """Strides, pads (top, left, bottom, right) and dilations of a sliding window."""
    strides = _two(attribute(node, "strides", None), 1, rank)
    dilations = _two(attribute(node, "dilations", None), 1, rank)
    given = attribute(node, "pads", None) or [0] * (2 * rank)
    pads = [*_two(given[:rank], 0, rank), *_two(given[rank:], 0, rank)]
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto == "VALID":
        pads = [0] * 4
    for axis in range(2):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-size[axis] // strides[axis])
            total = max(0, (out - 1) * strides[axis] + reach - size[axis])
            small, large = total // 2, total - total // 2
            both = (small, large) if auto == "SAME_UPPER" else (large, small)
            pads[axis], pads[axis + 2] = both
        if attribute(node, "ceil_mode", 0):
            free = size[axis] + pads[axis] + pads[axis + 2] - reach
            steps = -(-free // strides[axis])
            # a window that starts behind the map and its first pads is left out
            if steps * strides[axis] >= size[axis] + pads[axis]:
                steps -= 1
            pads[axis + 2] += max(0, steps * strides[axis] - free)
    return strides, pads, dilations


def _unpadded(view: View, pads: list[int], fill: float = 0.0) -> tuple[View, list[int]]:
    """What something before has put around a map, all of one number, becomes padding."""
    outside = view.index == CONSTANT
    around = view.add[outside] if view.add is not None else np.zeros(1)
    if not outside.any() or (around != fill).any() or (fill and any(pads)):
        return view, pads
    live = (view.index != CONSTANT).any(axis=(0, 1))
    ys, xs = np.flatnonzero(live.any(axis=1)), np.flatnonzero(live.any(axis=0))
    top, left, bottom, right = int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1
    inner = view.moved(lambda array: array[:, :, top:bottom, left:right])
    height, width = view.shape[2:]
    more = (top, left, height - bottom, width - right)
    return inner, [pad + extra for pad, extra in zip(pads, more, strict=True)]


def tokens_of(tracer: Tracer, view: View) -> ir.Value:
    """The tensor [N, H * W, C] of a map [N, C, H, W]; several maps of an image are in a row."""

    def rows(array: np.ndarray) -> np.ndarray:
        return array.transpose(0, 2, 3, 1).reshape(array.shape[0], -1, array.shape[1])

    return tracer.settler.exact(view.moved(rows))


def map_of(tracer: Tracer, value: ir.Value, maps: int, height: int, rank: int) -> View:
    """The view [maps, C, H, W] (or [maps, C, L]) of a tensor of pixels."""
    total, width = tracer.batch * sizes(value)[0], sizes(value)[1]
    view = tracer.settler.view_of_rows(value, np.arange(total).reshape(maps, -1))
    shape = (maps, width, height, -1) if rank == 2 else (maps, width, -1)
    return view.moved(lambda array: array.swapaxes(1, 2).reshape(shape))


def convolve(
    tracer: Tracer, node: ir.Node, inputs: list[Traced | None]
) -> list[Traced]:
    """Any convolution of one or two dimensions."""
    if isinstance(inputs[1], View | Elementwise):
        return [_by_activations(tracer, node, inputs)]
    weight = constant(inputs[1], "weight")
    rank, groups = weight.array.ndim - 2, attribute(node, "group", 1)
    view = as_map(tracer.view(inputs[0]))
    kernel = weight.array.reshape(*weight.shape[:2], 1, -1) if rank == 1 else weight.array
    size = (view.shape[2], view.shape[3])
    strides, pads, dilations = window(node, size, list(kernel.shape[2:]), rank)
    if attribute(node, "ceil_mode", 0) or view.shape[1] != kernel.shape[1] * groups:
        raise Unfit("its input and its weight do not fit")
    given = inputs[2] if len(inputs) > 2 else None
    bias = np.zeros(len(kernel)) if given is None else constant(given, "bias").array.ravel()
    hints = (weight.name, node.name or "")
    view, pads = _unpadded(view, pads)
    size, maps = (view.shape[2], view.shape[3]), view.shape[0]
    beside = _side_by_side(tracer, view)
    if beside is not None:
        heads = maps // tracer.batch
        view, groups = beside, groups * heads
        kernel, bias = np.tile(kernel, (heads, 1, 1, 1)), np.tile(bias, heads)
    height = (size[0] + pads[0] + pads[2] - dilations[0] * (kernel.shape[2] - 1) - 1) // strides[0]
    value = _of_image(tracer, view, kernel, bias, strides, pads, hints) if (
        groups == 1 and dilations == [1, 1]
    ) else None  # fmt: skip
    if value is None:
        value = tracer.settler.emit(
            "Conv", tokens_of(tracer, view), kernel, bias,
            map=list(size), strides=strides, pads=pads, dilations=dilations, groups=groups,
            hints=hints,
        )  # fmt: skip
    made = map_of(tracer, value, view.shape[0], height + 1, rank)
    return [made.moved(lambda array: array.reshape(maps, -1, *array.shape[2:]))]


def _side_by_side(tracer: Tracer, view: View) -> View | None:
    """Maps of an image that are channels of the same rows (heads, say) as one map of all these.

    They would be copies one behind the other otherwise.
    """
    maps, channels, height, width = view.shape
    if maps <= tracer.batch or maps % tracer.batch or (view.index == CONSTANT).any():
        return None
    view = view.moved(lambda array: array.reshape(tracer.batch, -1, height, width))
    rows, columns = np.divmod(view.index, sizes(view.base)[1])
    same = (rows == rows[:, :1]).all() and (columns == columns[:1, :, :1, :1]).all()
    apart = len(np.unique(columns[0, :, 0, 0])) == maps // tracer.batch * channels
    inner = view.base is not tracer.image
    return view if inner and same and apart else None


def _by_activations(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> View:
    view, weight = tracer.view(inputs[0]), tracer.view(inputs[1])
    if len(view.shape) != 4 or (len(inputs) > 2 and inputs[2] is not None):
        raise Unfit("its weight is computed from the image, and it has a bias or one dimension")
    strides, pads, dilations = window(
        node, (view.shape[2], view.shape[3]), list(weight.shape[2:]), 2
    )
    groups = attribute(node, "group", 1)
    return convolve_by(tracer, view, weight, groups, strides, pads, dilations)


def _of_image(
    tracer: Tracer, view: View, kernel: np.ndarray, bias: np.ndarray,
    strides: list[int], pads: list[int], hints: tuple[str, ...],
) -> ir.Value | None:  # fmt: skip
    """A convolution of the image itself, scaled and shifted by constants; ``None`` if it is not."""
    image = tracer.image
    whole = (tracer.batch, *(int(size) for size in shape_of(image)[1:]))
    if view.base is not image or view.shape != whole:
        return None
    if not np.array_equal(view.index.ravel(), np.arange(view.index.size)):
        return None
    mul, add = (
        np.full(whole[1], neutral) if array is None else array[0, :, 0, 0]
        for array, neutral in ((view.mul, 1.0), (view.add, 0.0))
    )
    even = all(
        array is None or (array == array[:1, :, :1, :1]).all() for array in (view.mul, view.add)
    )
    if not even or (add.any() and any(pads)):
        return None
    scaled = kernel * mul[:, None, None]
    shift = bias + np.einsum("ocyx,c->o", kernel, add)
    return tracer.settler.emit(
        "ImageConv", image, scaled, shift, strides=strides, pads=pads, hints=hints
    )


@handles("ConvTranspose")
def transposed(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Zeros between the pixels, then a convolution with the kernel turned around."""
    weight = constant(inputs[1], "weight")
    rank, groups = weight.array.ndim - 2, attribute(node, "group", 1)
    view = as_map(tracer.view(inputs[0]))
    if rank != 2 or attribute(node, "output_shape", None) is not None:
        raise Unfit("it is no plain transposed convolution of two dimensions", _FIX)
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        raise Unfit("it pads by a rule of its own", _FIX)
    strides, pads, dilations = window(node, (view.shape[2], view.shape[3]), [1, 1], rank)
    extra = attribute(node, "output_padding", None) or [0, 0]
    whole_cells = list(weight.shape[2:]) == strides and not any((*pads, *extra))
    if whole_cells and groups == 1 and dilations == [1, 1]:
        return [_cells(tracer, node, view, weight, inputs[2] if len(inputs) > 2 else None)]
    batch, channels, *size = view.shape
    wide = [(side - 1) * step + 1 for side, step in zip(size, strides, strict=True)]
    dense = map_of(tracer, tokens_of(tracer, view), batch, size[0], rank)
    index = np.full((batch, channels, *wide), CONSTANT, np.int32)
    index[:, :, :: strides[0], :: strides[1]] = dense.index
    spaced = View(dense.base, index)
    inner = weight.array.reshape(groups, -1, *weight.shape[1:])
    kernel = inner.swapaxes(1, 2)[..., ::-1, ::-1].reshape(-1, inner.shape[1], *weight.shape[2:])
    reach = [step * (k - 1) for step, k in zip(dilations, weight.shape[2:], strict=True)]
    around = [reach[0] - pads[0], reach[1] - pads[1],
              reach[0] - pads[2] + extra[0], reach[1] - pads[3] + extra[1]]  # fmt: skip
    if min(around) < 0:
        raise Unfit("it cuts off more than its kernel reaches", _FIX)
    plain = ir.Node("", "Conv", [], num_outputs=1, name=node.name, attributes=[
        ir.AttrInt64s("dilations", dilations), ir.AttrInt64s("pads", around),
        ir.AttrInt64("group", groups),
    ])  # fmt: skip
    rest = inputs[2:]
    return convolve(tracer, plain, [spaced, Const(kernel, weight.name), *rest])


def _cells(
    tracer: Tracer, node: ir.Node, view: View, weight: Const, bias: Traced | None
) -> View:
    """Every pixel becomes a cell of pixels: a linear layer, then movement."""
    batch, _, height, width = view.shape
    out, kh, kw = weight.shape[1:]
    matrix = weight.array.transpose(2, 3, 1, 0).reshape(kh * kw * out, -1)
    pixels = view.moved(lambda array: array.transpose(0, 2, 3, 1))
    made = tracer.settler.linear(pixels, matrix, (weight.name, node.name or ""))
    if bias is not None:
        shift = constant(bias, "bias")
        made = made.affine(1.0, np.tile(shift.array.ravel(), kh * kw), shift.name)

    def place(array: np.ndarray) -> np.ndarray:
        cells = array.reshape(batch, height, width, kh, kw, out).transpose(0, 5, 1, 3, 2, 4)
        return cells.reshape(batch, out, height * kh, width * kw)

    return made.moved(place)


@handles("MaxPool", "AveragePool", "GlobalMaxPool")
def pool(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The largest or the average of each window."""
    given = tracer.view(inputs[0])
    rank, view = len(given.shape) - 2, as_map(given)
    size = (view.shape[2], view.shape[3])
    if node.op_type == "GlobalMaxPool":
        kernel, strides, pads = list(size), [1, 1], [0] * 4
    else:
        kernel = _two(attribute(node, "kernel_shape", None), 1, rank)
        strides, pads, dilations = window(node, size, kernel, rank)
        if dilations != [1, 1] or len(node.outputs) > 1:
            raise Unfit("it skips pixels or says where the largest ones are", _FIX)
    kind = "average" if node.op_type == "AveragePool" else "max"
    if kind == "max":
        view, pads = _unpadded(view, pads, -np.inf)
        size = (view.shape[2], view.shape[3])
    height = (size[0] + pads[0] + pads[2] - kernel[0]) // strides[0] + 1
    if attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0):
        raise Unfit("it counts pixels outside of a map whose size it rounds up", _FIX)
    counted = attribute(node, "count_include_pad", 0)
    if kind == "average" and any(pads) and not counted and rank == 2 and all(
        runs_over_rows(view, axis) for axis in (2, 3)
    ):
        # the number of pixels that count is a product of those in a line and in a column
        for axis in (2, 3):
            place = axis - 2
            matrix = _averages(size[place], kernel[place], strides[place], pads[place::2])
            view = mix(tracer.settler, view, axis, matrix, (node.name or "",))
        return [view]
    value = tracer.settler.emit(
        "Pool", tokens_of(tracer, view),
        kind=kind, map=list(size), kernel=kernel, strides=strides, pads=pads,
        count_include_pad=counted,
    )  # fmt: skip
    if node.op_type == "GlobalMaxPool":
        form = (*given.shape[:2], *(1,) * rank)
        return [map_of(tracer, value, view.shape[0], 1, 2).moved(lambda array: array.reshape(form))]
    return [map_of(tracer, value, view.shape[0], height, rank)]


def _averages(size: int, kernel: int, stride: int, pads: list[int]) -> np.ndarray:
    """What averages windows of those of ``size`` pixels that are inside, as a matrix [out, in]."""
    first = np.arange(0, sum(pads) + size - kernel + 1, stride)[:, None] - pads[0]
    pixels = np.arange(size)
    inside = (pixels >= first) & (pixels < first + kernel)
    return inside / inside.sum(axis=1, keepdims=True)


@handles("Resize")
def resize(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Nearest pixels are moved; everything else is a constant matrix over each axis."""
    view = tracer.view(inputs[0])
    others = [None if value is None else constant(value, "size").array for value in inputs[1:]]
    others = [None if value is None or not value.size else value for value in others]
    if attribute(node, "mode", "nearest") == "nearest":
        numbers = np.arange(view.index.size, dtype=np.float64).reshape(view.shape)
        place = tracer.execute(node, [numbers, *others])[0].astype(np.int64)
        return [view.moved(lambda array: array.reshape(-1)[place])]
    shape = tracer.execute(node, [np.zeros(view.shape, np.float32), *others])[0].shape
    for axis in range(len(shape)):
        if shape[axis] != view.shape[axis]:
            matrix = _along(tracer, node, view.shape, shape, axis, others)
            view = mix(tracer.settler, view, axis, matrix, (node.name or "",))
    return [view]


def _along(
    tracer: Tracer, node: ir.Node, old: tuple[int, ...], new: tuple[int, ...], axis: int,
    others: list[np.ndarray | None],
) -> np.ndarray:  # fmt: skip
    """What a resize does along one axis, as a matrix [out, in]: run it on the unit vectors."""
    _, scales, target = (*others, None, None, None)[:3]
    axes = list(attribute(node, "axes", None) or range(len(old)))
    plain = ir.Node("", "Resize", [], num_outputs=1, attributes=[
        each for name, each in node.attributes.items() if name != "axes"
    ])  # fmt: skip
    form = [1, 1, old[axis], 1]
    if target is not None:
        given = [None, None, np.asarray([1, 1, new[axis], 1], np.int64)]
    else:
        assert scales is not None, "a resize has scales or sizes"
        factor = float(scales[axes.index(axis)])
        given = [None, np.asarray([1.0, 1.0, factor, 1.0], np.float32)]
    columns = [
        tracer.execute(plain, [unit.reshape(form), *given])[0].reshape(-1)
        for unit in np.eye(old[axis], dtype=np.float32)
    ]
    matrix = np.stack(columns, axis=1)
    if len(matrix) != new[axis]:
        raise Unfit("its sizes do not fit")
    return matrix
