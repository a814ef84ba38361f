"""Linear layers: one by one, in a pair with the next, or with the image in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import lcm

import numpy as np

from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import are_nibbles
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

    Image by image if some rows only are read or written, or weights of each image's task.
    """
    x, old, out = _places(state, op)
    for stored in _portions(state, op):
        parts = [(None, 1)] if stored is not None else _parts(state, op, x, out)
        for tiles, least in parts:
            _rows(state, op, x, out, prepare(state, op, x, out, stored, old, tiles), least)


def in_parts(state: Lowering, op: QLinear) -> Callable[[int, int], None]:
    """What emits the rows from one to another, as soon as they are there, once all have a place.

    For one that reads all rows of ``x``, and no weights from the token memory.
    """
    x, old, out = _places(state, op)
    emit = prepare(state, op, x, out, None, old)
    each = x.rows // (state.images if op.task else 1)

    def some(begin: int, end: int) -> None:
        for image in range(begin // each, -(-end // each)):
            first, last = max(begin, image * each), min(end, (image + 1) * each)
            for start, rows in state.row_blocks(last - first):
                emit(first + start, first + start, rows, first + start, image=image)

    return some


def _places(state: Lowering, op: QLinear) -> tuple[Placed, Placed | None, Placed]:
    """Of what it reads, of old values that are not in the place of the result, and of that."""
    x, out = state.placed[op.x], place_result(state, op)
    if state.strategy.turns and _may_turn(state, op):
        return x, *state.turn(op.out, op.x)
    return x, None, out


def _parts(
    state: Lowering, op: QLinear, x: Placed, out: Placed
) -> Sequence[tuple[range | None, int]]:
    """C tiles that are made one after another (``None``: all), and the least blocks of rows.

    Rows that are normalised wait for the MATMUL that has just made them, if they leave it more
    slowly than they are read.  Where the first tile takes half of the rows, and then the others,
    only the former are early, and not slow any more.  The price is that tile's weights once more.
    It is worth nothing where the epilogue still reads old values in the same place.
    The first tiles are as many as fill words and, of nibbles, wider tiles, whose rows leave more
    slowly still: these take a third of the rows at a time.
    """
    arch, half = state.arch, state.rows(op.x) // 2
    nibbles = are_nibbles(arch, op.weight)
    first = lcm(arch.tile_width(nibbles), arch.width, arch.depth) // arch.width
    tiles = -(-out.spread.physical // arch.width)
    waits = (
        arch.groups > 1 and state.strategy.turns and state.builder.just_made(x)
        and op.norm is not None and op.norm.statistics
    )
    # One c tile would not fill a pass of two.
    fills = not (nibbles and arch.nibble_tiles > 1)
    # Of no more than the first tiles, wider ones are worth it, too.
    wide = arch.tile_width(nibbles) > arch.width
    divisible = (tiles > first or wide) and fills and not (op.statistics or op.rows or op.task)
    # Nor may the array wait for the weights: a third of the bus is to spare, of nibbles a quarter.
    keeps_up = half >= arch.width and half * arch.dram_bytes >= 1.5 * arch.width * arch.depth
    if waits and divisible and keeps_up:
        blocks = 3 if wide else 2
        if tiles <= first:
            return ((None, blocks),)
        return (range(first), blocks), (range(first, tiles), 1)
    return ((None, 1),)


def _may_turn(state: Lowering, op: QLinear) -> bool:
    """Whether sums may change their place: all rows do, and the next op normalises them.

    That its rows do not wait has to be worth the instruction that says where old values are: there
    are no fewer of them than cycles in which the bus brings one.
    """
    rows = state.rows(op.out)
    every = op.rows is None and op.into is None and op.base is None and state.rows(op.x) == rows
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


def _rows(
    state: Lowering, op: QLinear, x: Placed, out: Placed, emit: Emit, least: int
) -> None:
    images = state.images if op.rows or op.task or op.into else 1
    each = x.rows // images
    count, first = (op.rows.count, op.rows.start) if op.rows else (each, 0)
    ahead = (op.into.start or 0) if op.into else 0
    for image in range(images):
        begin, to = image * each, image * (out.rows // images if op.into else count) + ahead
        for start, rows in state.row_blocks(count, least):
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
    each, ahead = window.places, 0
    if op.into is not None:
        each, ahead = out.rows // state.images, op.into.index[0]
    for number in range(state.images * window.maps):
        for start, rows, taps in blocks(window, state.arch.max_rows):
            to = number * each + ahead + start
            emit(number * window.pixels, to, rows, to, taps=taps)


def _fold(state: Lowering, op: QLinear, window: Window) -> None:
    """One MATMUL for each block of result rows; pixels of a line are words of a longer row."""
    x = state.placed[op.x]
    out = place_result(state, op)
    emit = prepare(state, op, x, out)
    images = state.images if op.into else 1
    count = state.images * window.count // images
    for image in range(images):
        ahead = image * (out.rows // images) + (op.into.index[0] if op.into else 0)
        for start, rows in state.row_blocks(count):
            first = (image * count + start) * window.map[1]
            emit(first, ahead + start, rows, ahead + start)
