"""The patch embedding of an image that comes block of rows by block, or of several images."""

from __future__ import annotations

from vitrify.codegen import image
from vitrify.codegen.lowering import Lowering

from .emit import place_result, prepare
from .integer import QLinear

#: Buffers in flight.
_BUFFERS = 2


def takes_image(state: Lowering, op: QLinear) -> bool:
    """Whether ``op`` is the only reader of an image that comes in blocks, or of several."""
    name = state.graph.input.out
    if state.strategy.image_blocks > 1:
        comes = len(image.blocks(state)) > 1
    else:
        # The constants of the first ops come with it: nothing reads them before.
        first = state.graph.ops[0] is op
        comes = first and state.images > 1 and state.rows(name) > state.arch.max_rows
    # What other ops read once all images are there is an output of those that run one by one.
    alone = name not in state.graph.outputs.values()
    return (
        comes and op.x == name and not (op.rows or op.norm or op.window) and alone
        and sum(name in other.sources() for other in state.graph.ops) == 1
    )


def lower(state: Lowering, op: QLinear, step: int) -> None:
    """LOAD and MATMUL of one block after another."""
    if state.strategy.image_blocks == 1:
        _images(state, op)
        return
    parts = image.blocks(state)
    buffers = [
        state.buffer(f"{op.x}.block{i}", op.x, parts[0][1], step) for i in range(_BUFFERS)
    ]
    out = place_result(state, op)
    emits = [prepare(state, op, buffer, out) for buffer in buffers]
    offset, turn = image.input_offset(state), 0
    for number in range(state.images):
        for first, rows in parts:
            start = number * state.image_rows(op.x) + first
            offset += image.load_block(state, buffers[turn], offset, row=0, rows=rows)
            emits[turn](0, start, rows, start)
            turn = (turn + 1) % _BUFFERS


def _images(state: Lowering, op: QLinear) -> None:
    """Every block of rows right behind the LOADs of its images: it does not wait for the others."""
    x, constants = state.placed[op.x], image.first_constants(state)
    emit = prepare(state, op, x, place_result(state, op))
    done, each = 0, state.image_rows(op.x)
    for start, rows in state.row_blocks(x.rows):
        end = -(-(start + rows) // each)
        image.load_images(state, range(done, end), constants)
        emit(start, start, rows, start)
        done = end
