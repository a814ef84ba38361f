"""Maxima of windows: every tap as it is, the first written, the others where they are larger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitrify.arch.isa import Output, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import weight_words
from vitrify.codegen.product import At, MatrixProduct
from vitrify.ops.linear.map_layout import Layout

from .integer import QLargest


def lower(state: Lowering, op: QLargest, step: int) -> None:
    """One MATMUL for each tap of a block of rows."""
    del step
    x, out = state.placed[op.x], state.place_near(op.out, apart=[op.x])
    channels = x.spread.channels
    layout = Layout(state.arch, replace(op.window, kernel=(1, 1)), x.spread, out.spread)
    columns = out.spread.physical
    weights = weight_words(
        state.arch, layout.matrix(np.full((channels, 1), op.weight, np.int8)),
        np.zeros(columns, np.int32), np.full(columns, op.requant.multiplier, np.uint16),
    )
    fields = {"transform": Transform.NONE, **state.requant(op.requant)}
    window, pixels = op.window, op.pixels()
    for map_number in range(state.images * window.maps):
        for start, rows in state.row_blocks(window.places):
            to = map_number * window.places + start
            for number, index in enumerate(pixels):
                output = Output.ADD8 if number else Output.INT8
                state.builder.matmul(MatrixProduct(
                    name=op.name, op="pool", macs=0, rows=rows, depth=layout.depth,
                    columns=columns, x=At(x), out=At(out, to), weights=[weights],
                    picks=map_number * window.pixels + index[start : start + rows],
                    k_step=layout.step, c_group=layout.group, largest=bool(number),
                    fields={**fields, "output": output},
                ))
