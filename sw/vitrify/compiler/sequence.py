"""In which order ops run: where their data allow several, for speed or for room."""

from __future__ import annotations

from collections import Counter

from vitrify.quant.graph import QOp, QuantGraph


def schedule(ops: list[QOp]) -> list[QOp]:
    """Put the op that makes what streams past other activations last among their makers.

    An attention's keys and values are then complete when the scores begin, and only queries, which
    stream, are still draining.  An op stays where it is if it would have to pass another that it
    must follow or precede (:func:`independent`).
    """
    result = list(ops)
    for op in ops:
        for name in op.streamed():
            maker = next((o for o in result if name in o.results()), None)
            if maker is None:
                continue
            at, to = result.index(maker), result.index(op)
            if all(independent(maker, other) for other in result[at + 1 : to]):
                result.remove(maker)
                result.insert(to - 1, maker)
    return result


def late(ops: list[QOp]) -> list[QOp]:
    """Put what one op alone reads right before that, where data allow it (:func:`independent`)."""
    result = list(ops)
    for op in reversed(ops):
        made = set(op.results())
        readers = [other for other in result if made.intersection(other.sources())]
        if len(readers) != 1:
            continue
        at, to = result.index(op), result.index(readers[0])
        if at < to and all(independent(op, other) for other in result[at + 1 : to]):
            result.remove(op)
            result.insert(to - 1, op)
    return result


def early(graph: QuantGraph) -> list[QOp]:
    """The ops, those that free more than they take as early as data allow (:func:`independent`).

    So of three wide layers that are pooled each, one at a time is there.
    """
    bits = {name: t.rows * t.channels * t.bits for name, t in graph.tensors.items()}
    made = {name for op in graph.ops for name in op.results()}
    # what adds to a stream comes before those that read it
    readers = Counter(n for op in graph.ops for n in {*op.sources()} - {*op.results()})
    result = list(graph.ops)
    for op in graph.ops:
        freed = {n for n in made.intersection(op.sources()) if readers[n] == 1}
        freed -= {*graph.outputs.values(), *op.results()}
        taken = {*op.results()} - {*op.sources()}
        if sum(bits[n] for n in freed) <= sum(bits[n] for n in taken):
            continue
        at = to = result.index(op)
        while to and independent(result[to - 1], op):
            to -= 1
        result.insert(to, result.pop(at))
    return result


def independent(first: QOp, second: QOp) -> bool:
    """Whether two ops may change places: neither writes what the other reads or writes.

    Residual additions write in place, so that every reader of the sum before has to stay in front
    of them.
    """
    made, used = set(first.results()), set(second.results())
    return made.isdisjoint(used | set(second.sources())) and used.isdisjoint(first.sources())
