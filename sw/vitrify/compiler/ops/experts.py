"""Experts: the router fills the queues, then every expert runs over the rows of its own.

The sequence is that of ``docs/microarchitecture.md``: ROUTE, and for each expert two MATMULs that
the core leaves out if nobody asked for it.
"""

from __future__ import annotations

from dataclasses import replace

from vitrify.arch.errors import CapacityError
from vitrify.compiler.builder import Queue
from vitrify.compiler.lowering import Lowering
from vitrify.compiler.placement import Placed
from vitrify.compiler.preload import Preloads
from vitrify.quant.graph import QExperts

from .linear import buffer, prepare


def lower(state: Lowering, op: QExperts, step: int, preloads: Preloads) -> None:
    """ROUTE and two MATMULs for each expert and block of its queue.

    A block is as long as the hidden buffer; a queue has as many rows as there are at most, so
    that later blocks are hardly ever run.
    """
    x, logits, residual = (state.placed[name] for name in (op.x, op.logits, op.residual))
    _check(state, op, x)
    out = state.place_near(op.out, apart=[op.x, op.residual])
    if op.statistics is not None:
        out = state.with_statistics(out)
    blocks = state.passing_blocks(op.x)
    widest = max((first.out for first, _ in op.experts), key=lambda n: state.spread_of(n).words)
    hidden = buffer(state, f"{op.name}.hidden", widest, blocks[0][1], step)
    state.builder.route(
        logits, x, experts=len(op.experts), choices=op.choices, normalise=op.normalise
    )
    for number, (first, second) in enumerate(op.experts):
        own = replace(hidden, spread=state.spread_of(first.out))
        stored = None, None
        if (op.name, number) in preloads:
            stored = preloads.take((op.name, number))
        into = prepare(state, first, x, own, stored[0])
        back = prepare(state, second, own, out, stored[1])
        for start, rows in blocks:
            picked, added = (
                Queue(number, start, 0 if start else share(state, layer.name, op, number))
                for layer in (first, second)
            )
            into(0, 0, rows, start, queue=picked)
            back(0, 0, rows, start, queue=replace(added, adds=residual))
        if (op.name, number) in preloads:
            preloads.release()
            preloads.fill()


def share(state: Lowering, name: str, op: QExperts, number: int) -> int:
    """An even part of the multiply-accumulates of all experts; the parts add up exactly."""
    macs, count = state.graph.macs[name], len(op.experts)
    return macs * (number + 1) // count - macs * number // count


def _check(state: Lowering, op: QExperts, x: Placed) -> None:
    arch, count = state.arch, len(op.experts)
    if count > arch.experts:
        has = f"routes to {arch.experts}" if arch.experts else "has no router"
        raise CapacityError(
            f"layer {op.name!r} has {count} experts and arch {arch.name!r} {has}: choose an arch "
            f"with `experts` of {count} or more"
        )
    entries = x.rows * op.choices
    if entries > arch.index_entries:
        raise CapacityError(
            f"layer {op.name!r} needs {entries} row-index entries for {op.choices} experts of "
            f"{x.rows} rows and arch {arch.name!r} has {arch.index_entries}: raise index_entries, "
            f"or use fewer tokens"
        )
