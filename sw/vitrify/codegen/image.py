"""The image and the constants: how they get into the token memory."""

from __future__ import annotations

from collections.abc import Iterable

from vitrify.arch.isa import Region
from vitrify.quant.graph import QConstant

from .lowering import Lowering
from .placement import Placed


def blocks(state: Lowering) -> list[tuple[int, int]]:
    """Blocks of rows ``(first, number)`` in which an image lies in memory."""
    rows = state.image_rows(state.graph.input.out)
    return state.row_blocks(rows, state.strategy.row_blocks)


def load(state: Lowering, whole: bool) -> None:
    """LOAD the constants of the first ops, and the image if it is wanted as a ``whole``."""
    graph, first = state.graph, _wanted(state, 0)
    for constant in first:
        state.place(graph.tensors[constant.out])
    if whole:
        placed, offset = state.place_near(graph.input.out), 0
        count = state.image_rows(placed.name)
        for image in range(state.images):
            for row, rows in blocks(state):
                offset += load_block(state, placed, offset, row=image * count + row, rows=rows)
    _load_constants(state, first)


def load_constants(state: Lowering, step: int) -> None:
    """LOAD what op number ``step`` or the one behind it is the first to use.

    One ahead, because some ops take the next along; no earlier, because of the room.
    """
    _load_constants(state, _wanted(state, step))


def _wanted(state: Lowering, step: int) -> list[QConstant]:
    used = {name for op in state.graph.ops[: step + 2] for name in (*op.sources(), *op.results())}
    return [
        constant for constant in state.graph.constants
        if constant.out in used and not state.was_placed(constant.out)
    ]


def _load_constants(state: Lowering, constants: Iterable[QConstant]) -> None:
    for constant in constants:
        state.place(state.graph.tensors[constant.out])
        value = state.spread_of(constant.out).scatter(constant.value, axis=1)
        for image in range(state.images):
            state.load_constant(state.placed[constant.out], value, row=image * len(value))


def load_block(state: Lowering, target: Placed, offset: int, *, row: int, rows: int) -> int:
    """LOAD rows of the input region, from byte ``offset`` on; returns how many bytes they have."""
    state.builder.load(target, Region.INPUT, offset, row=row, rows=rows)
    return rows * target.stride * state.arch.depth
