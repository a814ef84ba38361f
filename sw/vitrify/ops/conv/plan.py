"""Convolutions in the plan: linear maps that read windows of an int8 map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from vitrify.arch.formats import MAX_DEPTH
from vitrify.arch.isa import FORMATS, Opcode
from vitrify.ir import attributes_of, shape_of
from vitrify.ops.linear.plan import Affine, LinearValue, made_once
from vitrify.quant.plan import Array, unsupported
from vitrify.quant.planner import Planner, parameter, result_of
from vitrify.quant.windows import Window

_PATTERN = FORMATS[Opcode.PATTERN]
#: Taps in a column or in a row, pixels from one window to the next, and of a map's side.
MOST_TAPS = _PATTERN.field("taps_y").max
MOST_STRIDE = _PATTERN.field("tap_stride").max
MOST_SIDE = _PATTERN.field("map_height").max


def plan_conv(planner: Planner, node: ir.Node) -> LinearValue:
    """``Conv``: delayed, unless several read it.

    Weights of a dilated kernel have zeros between them.
    """
    attributes = attributes_of(node)
    weight = _spread(parameter(node, 1), attributes["dilations"])
    kernel = weight.shape[2], weight.shape[3]
    (high, wide), stride = one_stride(node, kernel)
    top, left, bottom, right = attributes["pads"]
    window = Window(
        (high, wide), kernel, stride, (top, left, bottom, right),
        attributes["groups"], maps_of(node, 0, high * wide),
    )
    return made_once(planner, node, convolution(planner, node, weight, parameter(node, 2), window))


def convolution(
    planner: Planner, node: ir.Node, weight: Array, bias: Array, window: Window
) -> Affine:
    """``weight [out, channels of a group, kh, kw]`` of windows of the first input's int8 form."""
    if max(window.kernel) > MOST_TAPS or window.stride > MOST_STRIDE:
        high, wide = window.kernel
        raise unsupported(
            node, f"a kernel of {high}x{wide} pixels with stride {window.stride} is larger than "
            f"{MOST_TAPS}x{MOST_TAPS} with stride {MOST_STRIDE}"
        )
    if max(window.map) > MOST_SIDE:
        raise unsupported(node, f"a side of its map of {window.map} is longer than {MOST_SIDE}")
    depth = window.taps * weight.shape[1]
    if depth > MAX_DEPTH:
        raise unsupported(
            node, f"it sums over {depth} products; the accumulators hold {MAX_DEPTH}"
        )
    x = planner.of(node, 0).int8(planner, node)
    matrix = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return Affine(x, matrix, bias, node.name or "", result_of(node), window=window)


def one_stride(node: ir.Node, kernel: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Map and stride, the same down and across, of a ``kernel`` that slides over a map."""
    attributes, (rows, columns) = attributes_of(node), kernel
    (high, wide), (down, across) = attributes["map"], attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    if down == across or (wide == columns and not left + right):
        return (high, wide), down
    if high == rows and not top + bottom:
        return (high, wide), across
    if (rows, down, columns) == (1, 1, across) and not (any(attributes["pads"]) or wide % columns):
        # Windows fill each line: they lie below each other in a map as wide as one.
        return (high * wide // columns, columns), 1
    raise unsupported(node, f"its strides {down} and {across} differ")


def maps_of(node: ir.Node, index: int, pixels: int) -> int:
    """Maps that an input of ``node`` holds."""
    value = node.inputs[index]
    assert value is not None
    return int(shape_of(value)[1]) // pixels


def plan_fold(planner: Planner, node: ir.Node) -> Affine:
    """``Fold``: the rows of a window side by side, in a map as wide as a window."""
    rows, (_, folded, size) = attributes_of(node)["rows"], shape_of(node.outputs[0])
    channels = int(size) // rows
    wide = next(n for n in range(min(rows, MOST_TAPS), 0, -1) if rows % n == 0)
    high = rows // wide
    weight = np.eye(rows * channels).reshape(-1, high, wide, channels).transpose(0, 3, 1, 2)
    window = Window((int(folded) * high, wide), (high, wide), high)
    made = convolution(planner, node, weight, np.zeros(rows * channels), window)
    return replace(made, identity=True)


def _spread(weight: Array, dilations: tuple[int, int]) -> Array:
    """The kernel with zeros between its taps."""
    down, across = dilations
    high, wide = weight.shape[2:]
    full = np.zeros((*weight.shape[:2], down * (high - 1) + 1, across * (wide - 1) + 1))
    full[:, :, ::down, ::across] = weight
    return full
