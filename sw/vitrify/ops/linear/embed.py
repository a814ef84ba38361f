"""The patch embedding of an image that comes block of rows by block."""

from __future__ import annotations

from vitrify.codegen import image
from vitrify.codegen.lowering import Lowering

from .emit import place_result, prepare
from .integer import QLinear

#: Buffers in flight.
_BUFFERS = 2


def takes_image(state: Lowering, op: QLinear) -> bool:
    """Whether ``op`` is the only reader of an image that comes in blocks."""
    name = state.graph.input.out
    return (
        state.strategy.row_blocks > 1 and op.x == name
        and not op.rows and op.norm is None and len(image.blocks(state)) > 1
        and sum(name in other.sources() for other in state.graph.ops) == 1
    )


def lower(state: Lowering, op: QLinear, step: int) -> None:
    """LOAD and MATMUL of one block after another."""
    parts = image.blocks(state)
    buffers = [
        state.buffer(f"{op.x}.block{i}", op.x, parts[0][1], step) for i in range(_BUFFERS)
    ]
    out = place_result(state, op)
    emits = [prepare(state, op, buffer, out) for buffer in buffers]
    offset = turn = 0
    for number in range(state.images):
        for first, rows in parts:
            start = number * state.image_rows(op.x) + first
            offset += image.load_block(state, buffers[turn], offset, row=0, rows=rows)
            emits[turn](0, start, rows, start)
            turn = (turn + 1) % _BUFFERS
