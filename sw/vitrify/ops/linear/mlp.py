"""Two linear layers, block of rows by block, so that the hidden tensor is never whole.

The second may be a convolution of the map that the first one makes: a block is then some lines of
the result, and the lines that two blocks read are made twice.
"""

from __future__ import annotations

from vitrify.codegen.lowering import Lowering
from vitrify.quant.windows import Window

from .emit import place_result, prepare
from .integer import QLinear


def second(state: Lowering, first: QLinear, step: int) -> QLinear | None:
    """The op behind ``first``, number ``step``, if the tensor between is passed on in blocks.

    It is if its rows need more than one block and nothing else reads it; in front of a
    convolution, only if the strategy wants blocks.
    """
    behind = _reader(state, first, step)
    if behind is None or first.window:
        return None
    if first.rows and (state.images > 1 or first.rows.start is None):
        return None
    if behind.window is not None:
        # Lines that two blocks read are made twice: what they are made of has to stay.
        stays = behind.out != first.x
        return behind if stays and _line_by_line(state, behind.window) else None
    return behind if len(state.passing_blocks(first.out)) > 1 else None


def _reader(state: Lowering, op: QLinear, step: int) -> QLinear | None:
    """The op behind ``op``, number ``step``, if it alone reads the result, and all of it."""
    behind = next(iter(state.graph.ops[step + 1 : step + 2]), None)
    if not isinstance(behind, QLinear) or op.out != behind.x:
        return None
    if op.add or op.statistics or op.task or behind.task or behind.rows or behind.times:
        return None
    if op.into or (behind.into and (state.images > 1 or behind.window)):
        return None
    readers = sum(op.out in other.sources() for other in state.graph.ops)
    return behind if readers == 1 and op.out not in state.graph.outputs.values() else None


def _line_by_line(state: Lowering, window: Window) -> bool:
    """Whether a convolution is made in blocks of whole lines, each of which reads some lines."""
    most = max(window.pads[0], window.pads[2], window.stride - 1)
    wide = window.lines or window.size[1] > state.arch.max_rows
    return state.strategy.row_blocks > 1 and window.kernel[0] > most and not wide


def lower(state: Lowering, first: QLinear, behind: QLinear, step: int) -> int:
    """Both layers, or three; returns how many.  ``step`` is that of ``behind``.

    Weights cross DRAM once a block.
    """
    begin = (first.rows.start if first.rows else 0) or 0
    if behind.window is not None:
        return _convolve(state, first, behind, behind.window, begin, step)
    blocks = state.passing_blocks(first.out)
    hidden = state.buffer(f"{first.out}.block", first.out, blocks[0][1], step)
    into = prepare(state, first, state.placed[first.x], hidden)
    out_of = prepare(state, behind, hidden, place_result(state, behind))
    ahead = (behind.into.start or 0) if behind.into else 0
    for start, rows in blocks:
        into(begin + start, 0, rows, start)
        out_of(0, ahead + start, rows, ahead + start)
    return 2


def _convolve(
    state: Lowering, first: QLinear, behind: QLinear, window: Window, begin: int, step: int
) -> int:
    """As many blocks of lines as the strategy wants, map by map.

    A layer behind the convolution takes its blocks as they come.
    """
    last = _reader(state, behind, step)
    if last is not None and (last.window or last.into or last.out == first.x):
        last = None
    (high, wide), (height, width) = window.map, window.size
    lines = -(-height // state.strategy.row_blocks)
    most = min(high, (lines - 1) * window.stride + window.kernel[0])
    hidden = state.buffer(f"{first.out}.block", first.out, most * wide, step)
    into = prepare(state, first, state.placed[first.x], hidden)
    if last is None:
        made, finish = place_result(state, behind), None
    else:
        made = state.buffer(f"{behind.out}.block", behind.out, lines * width, step + 1)
        finish = prepare(state, last, made, place_result(state, last))
    out_of = prepare(state, behind, hidden, made)
    at_once = state.arch.max_rows // width
    for number in range(state.images * window.maps):
        done = number * window.pixels
        for y in range(0, height, lines):
            end = min(y + lines, height)
            reads = window.reads(y, end)
            top = number * window.pixels + reads.start * wide
            for start, rows in state.row_blocks(len(reads) * wide):
                row = top + start
                into(begin + row, start, rows, row, done=done)
                done = max(done, row + rows)
            parts = [
                (line, number * window.places + line * width, min(at_once, end - line) * width)
                for line in range(y, end, at_once)
            ]
            for line, row, count in parts:
                to = row if finish is None else (line - y) * width
                out_of(0, to, count, row, taps=window.part(line, 0, width, reads))
            if finish is not None:
                for line, row, count in parts:
                    finish((line - y) * width, row, count, row)
    return 2 if last is None else 3
