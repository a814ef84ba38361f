"""Two linear layers, block of rows by block, so that the hidden tensor is never whole."""

from __future__ import annotations

from vitrify.codegen.lowering import Lowering, sources
from vitrify.quant.graph import QLinear, QOp

from .lower import buffer, place_result, prepare


def pair(state: Lowering, step: int) -> tuple[QLinear, QLinear] | None:
    """The ops ``step`` and ``step + 1`` if the tensor between them is passed on in blocks.

    It is if its rows need more than one block and nothing else reads it.
    """
    ops: list[QOp] = state.graph.ops[step : step + 2]
    if len(ops) < 2:
        return None
    first, second = ops
    if not isinstance(first, QLinear) or not isinstance(second, QLinear):
        return None
    if first.out != second.x or second.rows or first.add or first.statistics:
        return None
    if first.task or second.task or (first.rows and state.images > 1):
        return None
    readers = sum(first.out in sources(op) for op in state.graph.ops)
    private = readers == 1 and first.out not in state.graph.outputs.values()
    return (first, second) if private and len(state.passing_blocks(first.out)) > 1 else None


def lower(state: Lowering, first: QLinear, second: QLinear, step: int) -> None:
    """Both layers; ``step`` is the second one's.  Weights cross DRAM once a block."""
    blocks = state.passing_blocks(first.out)
    hidden = buffer(state, f"{first.out}.block", first.out, blocks[0][1], step)
    begin = (first.rows or (0, 0))[0]
    into = prepare(state, first, state.placed[first.x], hidden)
    out_of = prepare(state, second, hidden, place_result(state, second))
    for start, rows in blocks:
        into(begin + start, 0, rows, start)
        out_of(0, start, rows, start)
