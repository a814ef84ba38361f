"""The image as rows of pixels under a kernel: what a convolution of it streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.arch.errors import UnsupportedOpError
from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Affine, LinearValue, made_once
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import SAMPLE_ROWS, Request
from vitrify.quant.evaluate import quantise_input
from vitrify.quant.plan import ImageRows, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, parameter, result_of
from vitrify.quant.tensors import QTensor


@dataclass(frozen=True, kw_only=True)
class PixelsOp(PlanOp):
    """The rows that the host makes of the image: int8, pixels under the kernel as columns."""

    columns: int

    def reads(self) -> list[tuple[str, int]]:
        return []

    def channels(self, plan: Plan) -> int:
        return self.columns

    def requests(self, plan: Plan) -> list[Request]:
        return []


def assemble(a: Assembler, op: PixelsOp) -> None:
    """The tensor, and a sample of its rows."""
    spec = a.graph.input
    each = spec.patch[0] * spec.patch[1]
    count = max(1, -(-SAMPLE_ROWS // len(a.images)))
    rng, parts, rows = np.random.default_rng(0), [], 0
    for image in a.images[:SAMPLE_ROWS]:
        made = quantise_input(spec, image[None])[0]
        rows = len(made)
        parts.append(made[np.sort(rng.choice(rows, min(count, rows), replace=False))])
    a.codes[op.out] = np.concatenate(parts)
    a.graph.tensors[op.out] = QTensor(
        op.out, rows, op.columns, 8, np.repeat(1 / spec.multiplier, each),
        offset=np.repeat(-spec.offset / spec.multiplier, each),
    )


def another_embedding(planner: Planner, node: ir.Node) -> UnsupportedOpError:
    """The error for a second kind of rows made of the image."""
    rows = planner.plan.rows
    assert rows is not None
    (down, across), (high, wide) = rows.strides or rows.patch, rows.patch
    return unsupported(
        node, f"another embedding cuts the image in windows of {high}x{wide} pixels, {down}x"
        f"{across} apart, and all must have their windows in the same places"
    )


def plan_image_conv(planner: Planner, node: ir.Node) -> LinearValue:
    """``ImageConv``: a linear map of rows that hold the pixels under the kernel."""
    weight, attributes = parameter(node, 1), attributes_of(node)
    (high, wide), (top, left, bottom, right) = weight.shape[2:], attributes["pads"]
    if max(top, bottom) >= high or max(left, right) >= wide:
        raise unsupported(node, f"its pads are not smaller than its kernel of {high}x{wide} pixels")
    down, across = attributes["strides"]
    rows = ImageRows((high, wide), 0, strides=(down, across), pads=(top, left, bottom, right))
    name, matrix = f"{planner.plan.image}.rows", weight.reshape(len(weight), -1)
    if planner.plan.rows is None:
        planner.plan.rows = rows
        planner.append(PixelsOp(name=name, out=name, value="", columns=matrix.shape[1]))
    elif planner.plan.rows != rows:
        raise another_embedding(planner, node)
    return made_once(planner, node, Affine(
        Operand(name, ""), matrix, parameter(node, 2), node.name or "", result_of(node)
    ))
