"""Pools of a map in the plan: averages are convolutions, maxima an op of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of
from vitrify.ops.channelwise import ChannelwiseOp
from vitrify.ops.conv.plan import convolution, maps_of, one_stride
from vitrify.ops.linear.plan import LinearValue, Stored
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Operand, Plan
from vitrify.quant.planner import Planner, result_of
from vitrify.quant.windows import Window


@dataclass(frozen=True, kw_only=True)
class LargestOp(ChannelwiseOp):
    """The largest of each window of an int8 map, in the same format."""

    window: Window

    def requests(self, plan: Plan) -> list[Request]:
        """None: whatever those who read the result may need, ``x`` has that format, too."""
        return []


def plan_pool(planner: Planner, node: ir.Node) -> LinearValue:
    """``Pool`` of the int8 form."""
    attributes = attributes_of(node)
    rows, columns = attributes["kernel"]
    (high, wide), stride = one_stride(node, (rows, columns))
    top, left, bottom, right = attributes["pads"]
    channels = int(shape_of(node.outputs[0])[-1])
    window = Window(
        (high, wide), (rows, columns), stride, (top, left, bottom, right), channels,
        maps_of(node, 0, high * wide),
    )
    if attributes["kind"] == "average":
        weight = np.full((channels, 1, rows, columns), 1 / window.taps)
        return convolution(planner, node, weight, np.zeros(channels), window)
    x, name = planner.of(node, 0).int8(planner, node), result_of(node)
    planner.append(LargestOp(
        name=node.name or name, out=name, value=name, x=x.tensor, window=window
    ))
    return Stored(Operand(name, name))
