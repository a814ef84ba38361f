"""Mean over tokens: a constant operand row against the tokens as stationary values."""

from __future__ import annotations

import numpy as np

from vitrify.arch.isa import Output, Stationary, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.product import At, MatrixProduct, Tiles
from vitrify.quant.tensors import QTensor

from .integer import QPool


def constants(state: Lowering, op: QPool, step: int) -> None:
    """LOAD the operand row, if it is not there."""
    name, tokens = f"{op.name}.weight", op.stop - op.start
    if not state.was_placed(name):
        operand = state.place(QTensor(name, 1, tokens, 8, 1.0))
        state.release_later(name, step)
        state.load_constant(operand, np.full((1, tokens), op.weight, np.int8))


def lower(state: Lowering, op: QPool, step: int) -> None:
    """One MATMUL with a single row for each image."""
    constants(state, op, step)
    x, operand, tokens = state.placed[op.x], state.placed[f"{op.name}.weight"], op.stop - op.start
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
