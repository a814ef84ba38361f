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
    behind = next(iter(state.graph.ops[step + 1 : step + 2]), None)
    if not isinstance(behind, QLinear):
        return None
    if first.out != behind.x or behind.rows or first.add or first.statistics:
        return None
    if first.window or behind.times:
        return None
    if first.task or behind.task or (first.rows and (state.images > 1 or first.rows.start is None)):
        return None
    readers = sum(first.out in op.sources() for op in state.graph.ops)
    if readers > 1 or first.out in state.graph.outputs.values():
        return None
    if behind.window is not None:
        return behind if _line_by_line(state, behind.window) else None
    return behind if len(state.passing_blocks(first.out)) > 1 else None


def _line_by_line(state: Lowering, window: Window) -> bool:
    """Whether a convolution is made in blocks of whole lines, each of which reads some lines."""
    most = max(window.pads[0], window.pads[2], window.stride - 1)
    wide = window.lines or window.size[1] > state.arch.max_rows
    return state.strategy.row_blocks > 1 and window.kernel[0] > most and not wide


def lower(state: Lowering, first: QLinear, behind: QLinear, step: int) -> None:
    """Both layers; ``step`` is that of ``behind``.  Weights cross DRAM once a block."""
    begin = (first.rows.start if first.rows else 0) or 0
    if behind.window is not None:
        _convolve(state, first, behind, behind.window, begin, step)
        return
    blocks = state.passing_blocks(first.out)
    hidden = state.buffer(f"{first.out}.block", first.out, blocks[0][1], step)
    into = prepare(state, first, state.placed[first.x], hidden)
    out_of = prepare(state, behind, hidden, place_result(state, behind))
    for start, rows in blocks:
        into(begin + start, 0, rows, start)
        out_of(0, start, rows, start)


def _convolve(
    state: Lowering, first: QLinear, behind: QLinear, window: Window, begin: int, step: int
) -> None:
    """As many blocks of lines as the strategy wants, map by map."""
    (high, wide), (height, width) = window.map, window.size
    lines = -(-height // state.strategy.row_blocks)
    most = min(high, (lines - 1) * window.stride + window.kernel[0])
    hidden = state.buffer(f"{first.out}.block", first.out, most * wide, step)
    into = prepare(state, first, state.placed[first.x], hidden)
    out_of = prepare(state, behind, hidden, place_result(state, behind))
    at_once = state.arch.max_rows // width
    for number in range(state.images * window.maps):
        done = number * window.pixels
        for y in range(0, height, lines):
            end = min(y + lines, height)
            reads = window.reads(y, end)
            top = number * window.pixels + reads.start * wide
            for start, rows in state.row_blocks(len(reads) * wide):
                row = top + start
                into(begin + row, start, rows, row, fresh=max(0, row + rows - max(row, done)))
                done = max(done, row + rows)
            for line in range(y, end, at_once):
                count = min(at_once, end - line) * width
                to = number * window.places + line * width
                out_of(0, to, count, to, taps=window.part(line, 0, width, reads))
