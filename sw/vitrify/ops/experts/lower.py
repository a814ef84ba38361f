"""Experts: the router fills the queues, then every expert runs over the rows of its own.

The sequence is that of ``docs/microarchitecture.md``: ROUTE, and for each expert two MATMULs that
the core leaves out if nobody asked for it.
"""

from __future__ import annotations

from dataclasses import replace

from vitrify.arch import memmap
from vitrify.arch.errors import CapacityError
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.product import Queue
from vitrify.ops.linear.emit import prepare

from .integer import QExperts


def lower(state: Lowering, op: QExperts, step: int) -> None:
    """ROUTE and two MATMULs for each expert and block of its queue.

    A block is as long as the hidden buffer; a queue has as many rows as there are at most, so
    that later blocks are hardly ever run.  They would load all weights once more for few rows: the
    first one is as long as the core allows, unless the memory wants blocks.
    """
    x, residual = state.placed[op.x], state.placed[op.residual]
    macs, count, preloads = state.graph.macs, len(op.experts), state.preloads
    check_router(state, op.name, "experts", count, op.choices, x.rows)
    route(state, op, x.rows)
    del state.routed[op.logits]
    blocks = _blocks(state, op.x)
    widest = max((first.out for first, _ in op.experts), key=lambda n: state.spread_of(n).words)
    hidden = state.buffer(f"{op.name}.hidden", widest, blocks[0][1], step)
    # Behind what is streamed, which is the only one that has to have banks of its own.
    out = state.place_near(op.out, apart=[op.x, op.residual, hidden.name])
    if op.statistics is not None:
        out = state.with_statistics(out)
    for number, (first, second) in enumerate(op.experts):
        own = replace(hidden, spread=state.spread_of(first.out))
        stored = None, None
        if (op.name, number) in preloads:
            stored = preloads.take((op.name, number))
        into = prepare(state, first, x, own, stored[0])
        back = prepare(state, second, own, out, stored[1])
        for start, rows in blocks:
            picked, added = (
                Queue(number, start, 0 if start else share(macs[layer.name], count, number))
                for layer in (first, second)
            )
            into(0, 0, rows, start, queue=replace(picked, gathers=True))
            back(0, 0, rows, 0, queue=replace(added, scatters=True, adds=residual))
        if (op.name, number) in preloads:
            preloads.release()


def route(state: Lowering, op: QExperts, end: int) -> None:
    """ROUTE the rows before row ``end`` that are not in the queues yet."""
    begin, rows = state.routed.get(op.logits, 0), state.rows(op.x)
    if begin < end:
        state.builder.route(
            state.placed[op.logits], after=state.placed[op.x], row=begin, rows=end - begin,
            experts=len(op.experts), choices=op.choices, normalise=op.normalise,
            room=0 if begin else rows - end, joins=begin > 0,
        )
    state.routed[op.logits] = end


def _blocks(state: Lowering, name: str) -> list[tuple[int, int]]:
    """Blocks of a queue that may have all rows of tensor ``name``."""
    if state.strategy.row_blocks > 1:
        return state.passing_blocks(name)
    rows, most = state.rows(name), state.arch.max_rows
    return [(start, min(most, rows - start)) for start in range(0, rows, most)]


def share(macs: int, count: int, number: int) -> int:
    """An even part of the multiply-accumulates of all experts; the parts add up exactly."""
    return macs * (number + 1) // count - macs * number // count


def check_router(
    state: Lowering, name: str, what: str, count: int, choices: int, rows: int
) -> None:
    """Refuse a layer that sends every row to ``choices`` of ``count`` experts, if it is too much.

    Raises
    ------
    CapacityError
        If the core has no router, or one for fewer experts or shorter queues.
    """
    arch = state.arch
    if count > arch.experts:
        has = f"routes to {arch.experts}" if arch.experts else "has no router"
        raise CapacityError(
            f"layer {name!r} has {count} {what} and arch {arch.name!r} {has}: choose an arch "
            f"with `experts` of {count} or more"
        )
    entries = memmap.queue_entries(rows, choices)
    if entries > arch.index_entries:
        raise CapacityError(
            f"layer {name!r} needs {entries} row-index entries for {choices} {what} of "
            f"{rows} rows and arch {arch.name!r} has {arch.index_entries}: raise index_entries, "
            f"or use fewer tokens"
        )
