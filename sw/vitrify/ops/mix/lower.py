"""Constant matrices over tokens: their rows stream past the tokens as stationary values."""

from __future__ import annotations

from vitrify.arch.isa import Output, Stationary, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.product import At, MatrixProduct, Tiles
from vitrify.quant.tensors import QTensor

from .integer import QMix


def lower(state: Lowering, op: QMix, step: int) -> None:
    """For each image, run of rows and head one MATMUL (more if it has many rows)."""
    heads, count, inner = op.matrix.shape
    x, arch = state.placed[op.x], state.arch
    matrix = state.place(
        QTensor(f"{op.name}.matrix", heads * count, inner, 8, 1.0), beside=[op.x]
    )
    state.release_later(matrix.name, step)
    state.load_constant(matrix, op.matrix.reshape(-1, inner))
    out = state.placed[op.out] if op.add else state.place_near(op.out, apart=[op.x])
    if op.statistics is not None:
        out = state.with_statistics(out)
    runs = state.images * op.row_groups
    macs = state.graph.macs[op.name] // (runs * heads * count)
    for run in range(runs):
        for head, requant in enumerate(op.requants):
            channel = head * out.spread.head_words * arch.depth
            for start, rows in state.row_blocks(count):
                to = run * count + start
                state.builder.matmul(MatrixProduct(
                    name=op.name, op="mix", macs=macs * rows, rows=rows, depth=inner,
                    columns=out.spread.head_channels, x=At(matrix, head * count + start),
                    tiles=Tiles(Stationary.COLUMNS, At(x, run * inner, channel)),
                    out=At(out, to, channel),
                    fields={
                        "transform": Transform.NONE,
                        "output": Output.ADD16 if op.add else Output.INT16,
                        **state.requant_single(requant),
                        **state.gather(op.statistics, out, to),
                    },
                ))
