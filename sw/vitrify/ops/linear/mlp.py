"""Two linear layers, block of rows by block, so that the hidden tensor is never whole."""

from __future__ import annotations

from vitrify.codegen.lowering import Lowering

from .emit import place_result, prepare
from .integer import QLinear


def second(state: Lowering, first: QLinear, step: int) -> QLinear | None:
    """The op behind ``first``, number ``step``, if the tensor between is passed on in blocks.

    It is if its rows need more than one block and nothing else reads it.
    """
    behind = next(iter(state.graph.ops[step + 1 : step + 2]), None)
    if not isinstance(behind, QLinear):
        return None
    if first.out != behind.x or behind.rows or first.add or first.statistics:
        return None
    if first.window or behind.window or behind.times:
        return None
    if first.task or behind.task or (first.rows and (state.images > 1 or first.rows.start is None)):
        return None
    readers = sum(first.out in op.sources() for op in state.graph.ops)
    private = readers == 1 and first.out not in state.graph.outputs.values()
    return behind if private and len(state.passing_blocks(first.out)) > 1 else None


def lower(state: Lowering, first: QLinear, behind: QLinear, step: int) -> None:
    """Both layers; ``step`` is that of ``behind``.  Weights cross DRAM once a block."""
    blocks = state.passing_blocks(first.out)
    hidden = state.buffer(f"{first.out}.block", first.out, blocks[0][1], step)
    begin = (first.rows.start if first.rows else 0) or 0
    into = prepare(state, first, state.placed[first.x], hidden)
    out_of = prepare(state, behind, hidden, place_result(state, behind))
    for start, rows in blocks:
        into(begin + start, 0, rows, start)
        out_of(0, start, rows, start)
