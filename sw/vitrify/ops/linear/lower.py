"""Linear layers: one by one, in a pair with the next, or with the image in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import Stored
from vitrify.quant.windows import Window

from . import embed, mlp
from .emit import Emit, place_result, prepare
from .integer import QLinear
from .map_layout import blocks


def lower(state: Lowering, op: QLinear, step: int) -> int:
    """The instructions of op number ``step``, or of it and the next ones; returns how many."""
    if embed.takes_image(state, op):
        embed.lower(state, op, step)
        return 1
    behind = mlp.second(state, op, step)
    if behind is not None:
        return mlp.lower(state, op, behind, step + 1)
    if op.window is not None:
        (_fold if op.window.lines else _convolve)(state, op, op.window)
    else:
        _whole(state, op)
    return 1


def _whole(state: Lowering, op: QLinear) -> None:
    """One MATMUL for each block of rows (the stream repeats with every block).

    Image by image if some rows only are wanted, or weights of each image's task.
    """
    x, old = state.placed[op.x], None
    out = place_result(state, op)
    if state.strategy.turns and _may_turn(state, op):
        old, out = state.turn(op.out, op.x)
    for stored in _portions(state, op):
        for tiles, blocks in _early(state, op, x, out) if stored is None else [(None, 1)]:
            _rows(state, op, x, prepare(state, op, x, out, stored, old, tiles), blocks)


def _early(
    state: Lowering, op: QLinear, x: Placed, out: Placed
) -> list[tuple[range | None, int]]:
    """C tiles that are made one after another, and in how many blocks of rows; all: ``None``.

    Rows that are normalised wait for the MATMUL that has just made them, if they leave it more
    slowly than they are read.  Where the first tile takes half of the rows, and then the others, the
    former alone are early, and they are slow no more.  The price is this tile's weights once more.
    It is worth nothing where the epilogue still reads old values in the same place.
    """
    arch, rows, whole = state.arch, state.rows(op.x), [(None, 1)]
    if arch.groups == 1 or not state.strategy.turns or not state.builder.just_made(x):
        return whole
    normed = op.norm is not None and op.norm.statistics
    if not normed or op.statistics or op.rows or op.task:
        return whole
    half, tile = rows // 2, arch.width * arch.depth
    first, tiles = max(1, arch.depth // arch.width), -(-out.spread.physical // arch.width)
    # Nor may the array wait for its weights.
    if half < arch.width or half * arch.dram_bytes < 1.5 * tile or tiles <= first:
        return whole
    return [(range(first), 2), (range(first, tiles), 1)]


def _may_turn(state: Lowering, op: QLinear) -> bool:
    """Whether sums may change their place: all rows do, and the next op normalises them.

    That its rows do not wait has to be worth the instruction that says where old values are: there
    are no fewer of them than cycles in which the bus brings one.
    """
    rows = state.rows(op.out)
    every = op.rows is None and state.rows(op.x) == rows
    worth = rows * state.arch.dram_bytes >= INSTRUCTION_BYTES
    return op.add and op.statistics is not None and every and worth


def _portions(state: Lowering, op: QLinear) -> Iterator[Stored | None]:
    """Pieces of the weights that are loaded ahead of time; none are: ``None``."""
    preloads, number = state.preloads, 0
    if (op.name, 0) not in preloads:
        yield None
    while (op.name, number) in preloads:
        yield from preloads.take((op.name, number))
        preloads.release()
        number += 1


def _rows(state: Lowering, op: QLinear, x: Placed, emit: Emit, blocks: int) -> None:
    images = state.images if op.rows or op.task else 1
    each = x.rows // images
    count, first = (op.rows.count, op.rows.start) if op.rows else (each, 0)
    for image in range(images):
        begin, to = image * each, image * count
        for start, rows in state.row_blocks(count, blocks):
            if first is None:
                assert op.rows is not None
                picks = np.array(op.rows.index[start : start + rows])
                emit(begin, to + start, rows, to + start, image=image, picks=picks)
            else:
                emit(begin + first + start, to + start, rows, to + start, image=image)


def _convolve(state: Lowering, op: QLinear, window: Window) -> None:
    """One MATMUL for each block of result rows; the map is in memory as a whole."""
    x = state.placed[op.x]
    out = place_result(state, op)
    emit = prepare(state, op, x, out)
    for number in range(state.images * window.maps):
        for start, rows, taps in blocks(window, state.arch.max_rows):
            to = number * window.places + start
            emit(number * window.pixels, to, rows, to, taps=taps)


def _fold(state: Lowering, op: QLinear, window: Window) -> None:
    """One MATMUL for each block of result rows; pixels of a line are words of a longer row."""
    x = state.placed[op.x]
    out = place_result(state, op)
    emit = prepare(state, op, x, out)
    for start, rows in state.row_blocks(state.images * window.count):
        emit(start * window.map[1], start, rows, start)
