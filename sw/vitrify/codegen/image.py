"""The image and the constants: how they get into the token memory."""

from __future__ import annotations

from collections.abc import Iterable

from vitrify.arch.isa import Region
from vitrify.quant.graph import QConstant

from .lists import NEVER
from .lowering import Lowering
from .placement import Placed


def blocks(state: Lowering) -> list[tuple[int, int]]:
    """Blocks of rows ``(first, number)`` in which an image lies in memory."""
    rows = state.image_rows(state.graph.input.out)
    if in_bands(state):
        return [(0, rows)]
    return state.row_blocks(rows, state.strategy.image_blocks)


def in_bands(state: Lowering) -> bool:
    """Whether no op reads the image as a tensor: some load rows of it."""
    name = state.graph.input.out
    return not any(name in op.sources() for op in state.graph.ops)


def load(state: Lowering, whole: bool) -> None:
    """LOAD the constants of the first ops, and the image if it is wanted as a ``whole``.

    Where it is not, but is in memory as one, the op that takes it loads both, image by image.
    """
    graph, first = state.graph, _wanted(state, 0)
    for constant in first:
        state.place(graph.tensors[constant.out])
    if in_bands(state):
        _load_constants(state, first, range(state.images))
        return
    if whole or state.strategy.image_blocks == 1:
        state.place_near(graph.input.out)
    if whole:
        load_images(state, range(state.images), ())
    if whole or state.strategy.image_blocks > 1:
        _load_constants(state, first, range(state.images))


def load_images(state: Lowering, numbers: range, constants: Iterable[QConstant]) -> None:
    """LOAD images, and then their rows of ``constants``, to places that nothing has used before.

    Image by image, the ones before have used them.
    """
    placed = state.placed[state.graph.input.out]
    count, before = state.image_rows(placed.name), input_offset(state)
    size, after = placed.stride * state.arch.depth, None if state.image else NEVER
    for number in numbers:
        for row, rows in blocks(state):
            first = number * count + row
            load_block(state, placed, before + first * size, row=first, rows=rows, after=after)
    _load_constants(state, constants, numbers, after=after)


def first_constants(state: Lowering) -> list[QConstant]:
    """Those that :func:`load` has placed."""
    return [one for one in state.graph.constants if one.out in state.placed]


def input_offset(state: Lowering) -> int:
    """Bytes of the input region before the first image that is lowered at present."""
    name = state.graph.input.out
    words = state.image_rows(name) * state.spread_of(name).words
    return state.image * words * state.arch.depth


def load_constants(state: Lowering, step: int) -> None:
    """LOAD what op number ``step`` or the one behind it is the first to use.

    One ahead, because some ops take the next along; no earlier, because of the room.
    """
    _load_constants(state, _wanted(state, step), range(state.images))


def _wanted(state: Lowering, step: int) -> list[QConstant]:
    left = [one for one in state.graph.constants if not state.was_placed(one.out)]
    if not left:
        return []
    used = {name for op in state.graph.ops[: step + 2] for name in (*op.sources(), *op.results())}
    return [constant for constant in left if constant.out in used]


def _load_constants(
    state: Lowering, constants: Iterable[QConstant], images: range, after: int | None = None
) -> None:
    for constant in constants:
        state.place(state.graph.tensors[constant.out])
        value = state.spread_of(constant.out).scatter(constant.value, axis=1)
        for image in images:
            row = image * len(value)
            state.load_constant(state.placed[constant.out], value, row=row, after=after)


def load_block(
    state: Lowering, target: Placed, offset: int, *, row: int, rows: int, after: int | None = None
) -> int:
    """LOAD rows of the input region, from byte ``offset`` on; returns how many bytes they have.

    ``after`` as :meth:`~vitrify.codegen.builder.Builder.load`.
    """
    state.builder.load(target, Region.INPUT, offset, row=row, rows=rows, after=after)
    return rows * target.stride * state.arch.depth
