"""Mean over tokens: a constant operand row against the tokens as stationary values."""

from __future__ import annotations

import numpy as np

from vitrify.arch.isa import Output, Stationary, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.product import At, MatrixProduct, Tiles
from vitrify.quant.tensors import QTensor

from .integer import QPool


def lower(state: Lowering, op: QPool, step: int) -> None:
    """One MATMUL with a single row for each image."""
    x = state.placed[op.x]
    tokens = op.stop - op.start
    weight = np.full((1, tokens), op.weight, np.int8)
    operand = state.place(QTensor(f"{op.name}.weight", 1, tokens, 8, 1.0))
    state.release_later(operand.name, step)
    state.load_constant(operand, weight)
    out = state.place_near(op.out, apart=[op.x])
    if op.statistics is not None:
        out = state.with_statistics(out)
    for image in range(state.images):
        state.builder.matmul(MatrixProduct(
            name=op.name, op="pool", macs=state.graph.macs[op.name] // state.images, rows=1,
            depth=tokens, columns=x.spread.physical, x=At(operand), out=At(out, image),
            tiles=Tiles(
                Stationary.COLUMNS, At(x, image * (x.rows // state.images) + op.start)
            ),
            fields={
                "transform": Transform.NONE, "output": Output.INT16 if out.wide else Output.INT8,
                **state.requant_single(op.requant),
                **state.gather(op.statistics, out, image),
            },
        ))
