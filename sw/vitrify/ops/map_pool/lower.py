"""Maxima of windows: every tap as it is, the first written, the others where they are larger."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

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
    channels, width = x.spread.channels, state.arch.width
    layout = Layout(
        state.arch, replace(op.window, kernel=(1, 1)), x.spread, out.spread, split=0
    )
    streams = []
    for part in layout.parts:
        matrix = layout.matrix(np.full((channels, 1), op.weight, np.int8), part)
        streams.append(weight_words(
            state.arch, matrix, np.zeros(len(matrix), np.int32),
            np.full(len(matrix), op.requant.multiplier, np.uint16),
        ))
    fields = {"transform": Transform.NONE, **state.requant(op.requant)}
    window, pixels = op.window, op.pixels()
    for map_number in range(state.images * window.maps):
        for start, rows in state.row_blocks(window.places):
            to = map_number * window.places + start
            for (number, index), (part, weights) in product(
                enumerate(pixels), zip(layout.parts, streams, strict=True)
            ):
                output = Output.ADD8 if number else Output.INT8
                columns = part.columns(width, out.spread.physical)
                state.builder.matmul(MatrixProduct(
                    name=op.name, op="pool", macs=0, rows=rows, depth=layout.depth(part),
                    columns=columns.stop - columns.start,
                    x=At(x, map_number * window.pixels, part.word * state.arch.depth),
                    out=At(out, to, columns.start),
                    weights=[weights],
                    picks=index[start : start + rows],
                    k_step=part.step, c_group=part.group, largest=bool(number),
                    fields={**fields, "output": output},
                ))
