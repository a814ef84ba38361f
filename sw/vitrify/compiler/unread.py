"""Rows that no result depends on are not computed.

A head that reads the class token needs one row of what the last block makes, but for its keys and
values.  From the results backwards, every tensor is asked which rows of it are read; an operation
then makes those from the first to the last of them.  Their integers stay what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vitrify.quant.graph import QOp, QuantGraph


def leave_out(graph: QuantGraph) -> QuantGraph:
    """The same graph, without the rows that nothing reads."""
    whole: set[str] = set()
    while True:
        plan = _plan(graph, whole)
        made = _made(graph, plan)
        if isinstance(made, QuantGraph):
            return made
        whole.add(made)


@dataclass(frozen=True)
class _Plan:
    """Rows that each op makes, and those that each tensor still has, by their names."""

    made: Mapping[str, range]
    kept: Mapping[str, range]


def _plan(graph: QuantGraph, whole: set[str]) -> _Plan:
    """``whole`` names ops that make and read all rows."""
    every = {name: range(tensor.rows) for name, tensor in graph.tensors.items()}
    makers = {op.out: op.name for op in reversed(graph.ops)}
    read = {name: every[name] for name in graph.outputs.values()}
    made: dict[str, range] = {}
    kept: dict[str, range] = dict(every)

    def ask(name: str, rows: range) -> None:
        known = read.get(name, rows)
        read[name] = range(min(known.start, rows.start), max(known.stop, rows.stop))

    for op in reversed(graph.ops):
        adds = op.out in op.sources()
        rows = read.get(op.out, every[op.out])
        able = _written(op, len(every[op.out]))
        rows = range(max(rows.start, able.start), min(rows.stop, able.stop))
        reads = None if op.name in whole or not rows else op.rows_read(rows)
        if reads is None:
            rows = able
        made[op.name] = rows
        if not adds and makers[op.out] == op.name:
            kept[op.out] = rows
        for name in op.sources():
            if adds and name == op.out:
                ask(name, rows)
            else:
                ask(name, every[name] if reads is None else reads.get(name, every[name]))
    return _Plan(made, kept)


def _written(op: QOp, count: int) -> range:
    """The rows of ``out``, which has so many, that an op writes: they lie together."""
    rows = op.written(1, count)
    return range(int(rows[0]), int(rows[-1]) + 1)


def _made(graph: QuantGraph, plan: _Plan) -> QuantGraph | str:
    """The graph as planned, or the name of an op that cannot make its part."""
    ops: list[QOp] = []
    macs = dict(graph.macs)
    for op in graph.ops:
        rows, count = plan.made[op.name], len(_written(op, graph.tensors[op.out].rows))
        touched = (op.out, *op.sources())
        if len(rows) == count and all(
            len(plan.kept[name]) == graph.tensors[name].rows for name in touched
        ):
            ops.append(op)
            continue
        part = op.part(rows, plan.kept)
        if part is None:
            return op.name
        ops.append(part)
        if op.name in macs:
            macs[op.name] = macs[op.name] * len(rows) // count
    tensors = {
        name: replace(tensor, rows=len(plan.kept[name])) for name, tensor in graph.tensors.items()
    }
    return replace(graph, ops=ops, tensors=tensors, macs=macs)
