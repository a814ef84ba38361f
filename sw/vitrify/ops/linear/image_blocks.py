"""The image: loaded whole, or block of rows by block in front of the patch embedding."""

from __future__ import annotations

from typing import TypeGuard

from vitrify.arch.isa import Region
from vitrify.codegen.lowering import Lowering, sources
from vitrify.program import to_words
from vitrify.quant.graph import QLinear, QOp

from .lower import buffer, place_result, prepare

#: Buffers in flight when the image comes in blocks.
_BUFFERS = 2


def blocks(state: Lowering) -> list[tuple[int, int]]:
    """Blocks of rows in which an image lies in memory."""
    rows = state.image_rows(state.graph.input.out)
    return state.row_blocks(rows, state.strategy.row_blocks)


def splits(op: QOp, state: Lowering) -> TypeGuard[QLinear]:
    """Whether ``op`` takes the image block by block."""
    name = state.graph.input.out
    return (
        state.strategy.row_blocks > 1 and isinstance(op, QLinear) and op.x == name
        and not op.rows and op.norm is None and len(blocks(state)) > 1
        and sum(name in sources(other) for other in state.graph.ops) == 1
    )


def load(state: Lowering) -> None:
    """LOAD constants, and the image unless its only reader loads it."""
    graph, arch = state.graph, state.arch
    for constant in graph.constants:
        state.place(graph.tensors[constant.out])
    if not splits(graph.ops[0], state):
        placed, offset = state.place_near(graph.input.out), 0
        count = state.image_rows(placed.name)
        for image in range(state.images):
            for row, rows in blocks(state):
                state.builder.load(
                    placed, Region.INPUT, offset, row=image * count + row, rows=rows
                )
                offset += rows * placed.stride * arch.depth
    for constant in graph.constants:
        block = state.builder.image.add(to_words(constant.value, arch.depth))
        count = len(constant.value)
        for image in range(state.images):
            state.builder.load(
                state.placed[constant.out], Region.PROGRAM, block, row=image * count, rows=count
            )


def lower(state: Lowering, op: QLinear, step: int) -> None:
    """LOAD and MATMUL of one block after another."""
    parts = blocks(state)
    buffers = [
        buffer(state, f"{op.x}.block{i}", op.x, parts[0][1], step) for i in range(_BUFFERS)
    ]
    out = place_result(state, op)
    emits = [prepare(state, op, image, out) for image in buffers]
    offset = turn = 0
    for image in range(state.images):
        for first, rows in parts:
            placed, start = buffers[turn], image * state.image_rows(op.x) + first
            state.builder.load(placed, Region.INPUT, offset, row=0, rows=rows)
            offset += rows * placed.stride * state.arch.depth
            emits[turn](0, start, rows, start)
            turn = (turn + 1) % _BUFFERS
