"""Softmax as a tensor of its own: identity matrices make logits, and then their shares."""

from __future__ import annotations

import numpy as np

from vitrify.arch.isa import Output, RowScale, Stats, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import Bytes, weight_words
from vitrify.codegen.product import At, MatrixProduct
from vitrify.ops.transpose.integer import ONE
from vitrify.quant.tensors import QTensor

from .shares_integer import WHOLE, QShares

#: Buffers of logits in flight: those of a head are made while the one before is read.
_BUFFERS = 2


def lower(state: Lowering, op: QShares, step: int) -> None:
    """Two MATMULs for each head of a block of rows, staggered."""
    x = state.placed[op.x]
    out, spread = state.place_near(op.out, apart=[op.x]), x.spread
    blocks, buffers = state.row_blocks(x.rows), []
    for number in range(_BUFFERS):
        tensor = QTensor(f"{op.name}.logits{number}", blocks[0][1], spread.head_channels, 8, 1.0)
        placed = state.place(tensor, beside=[op.x])
        state.release_later(tensor.name, step)
        buffers.append(state.with_statistics(placed))
    logits, shares = (_identity(state, one, op, spread.head_channels) for one in (ONE, WHOLE))
    waiting: MatrixProduct | None = None
    for number in range(len(blocks) * op.heads):
        (start, rows), head = blocks[number // op.heads], number % op.heads
        buffer, channel = buffers[number % _BUFFERS], head * spread.head_words * state.arch.depth
        state.builder.matmul(MatrixProduct(
            name=f"{op.name}.logits[{head}]", op="softmax", macs=0, rows=rows,
            depth=spread.head_channels, columns=spread.head_channels, x=At(x, start, channel),
            out=At(buffer), weights=[logits], fields={
                "transform": Transform.NONE, "output": Output.INT8, **state.requant(op.logits),
                "stats": Stats.MAX, "stat_dst": buffer.stat,
            },
        ))
        if waiting is not None:
            state.builder.matmul(waiting)
        waiting = MatrixProduct(
            name=f"{op.name}[{head}]", op="softmax", macs=0, rows=rows,
            depth=spread.head_channels, columns=spread.head_channels, x=At(buffer),
            out=At(out, start, channel), weights=[shares], fields={
                "transform": Transform.EXP2, "output": Output.INT8,
                "row_scale": RowScale.OPERAND, "stat_src": buffer.stat,
            },
        )
    assert waiting is not None
    state.builder.matmul(waiting)


def _identity(state: Lowering, one: int, op: QShares, size: int) -> Bytes:
    """``one`` times the identity matrix, with the multiplier of logits."""
    multiplier = np.full(size, int(op.logits.multiplier), np.uint16)
    return weight_words(
        state.arch, one * np.eye(size, dtype=np.int8), np.zeros(size, np.int32), multiplier
    )
