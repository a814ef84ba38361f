"""Which tensors pass in bands, and in how many: no more than the token memory asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vitrify.arch.errors import CapacityError
from vitrify.codegen.alloc import PlacementError
from vitrify.codegen.strategy import Passing
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.product.integer import QProduct
from vitrify.quant.graph import QuantGraph

from .bands import in_bands, may_pass

#: Multiplications of all bands, for one of the network, in the narrowest bands that are tried:
#: what is chosen in the end is wider, and makes fewer lines twice.
_MOST_WORK = 2.5
#: Part of the most work that counts for nothing where tensors are compared.
_LITTLE = 0.0005
#: Numbers of bands that are tried: each is twice the one before.
_FEWEST, _MOST = 2, 64


def _work(graph: QuantGraph) -> float:
    """Multiplications, those that are made again included."""
    return sum(
        graph.macs.get(op.name, 0) * (
            len(_made(graph, op)) / op.band.total
            if isinstance(op, QLinear | QProduct) and op.band else 1
        ) for op in graph.ops
    )


def _made(graph: QuantGraph, op: QLinear | QProduct) -> Sequence[int]:
    """Rows that it makes."""
    return op.into.index if op.into else range(graph.tensors[op.out].rows)


def fewest(graph: QuantGraph, fits: Callable[[Passing], object]) -> Passing | None:
    """How a graph passes in bands, in as few as there is room for.

    Tensors begin to pass one after another, in the narrowest bands: of those that were there when
    the room ran out, the one that gives most room for what is made again.  Then bands are as wide
    as there is room.  ``None``: that does not help, or cannot be.

    Parameters
    ----------
    fits : raises a ``PlacementError`` if that does not fit
    """
    tensors = _passing(graph, fits)
    counts: dict[str, int] = {}
    while tensors is not None:
        way = Passing(tensors, _FEWEST, tuple(counts.items()))
        try:
            fits(way)
        except PlacementError as error:
            groups = in_bands(graph, way).groups
            short = groups[error.step]
            # what is not in bands has no room between others, however many these are
            for name in [short] if short else {*groups} - {""}:
                counts[name] = 2 * counts.get(name, _FEWEST)
            if max(counts.values(), default=_MOST + 1) > _MOST:
                return Passing(tensors, _MOST)
        except CapacityError:  # no field of an instruction takes what a band needs
            return None
        else:
            return way
    return None


def _passing(graph: QuantGraph, fits: Callable[[Passing], object]) -> frozenset[str] | None:
    """Tensors that have to pass, so that all others have room."""
    able, tensors = may_pass(graph), frozenset[str]()
    numbers = {op.name: i for i, op in enumerate(graph.ops)}
    makers: dict[str, list[int]] = {}
    for i, op in enumerate(graph.ops):
        for name in op.results():
            makers.setdefault(name, []).append(i)
    most = _MOST_WORK * sum(graph.macs.values())
    while True:
        way = Passing(tensors, _MOST)
        try:
            fits(way)
        except PlacementError as error:
            now = numbers.get(in_bands(graph, way).graph.ops[error.step].name, -1)
            age = {
                name: max((i for i in makers.get(name, ()) if i <= now), default=-1)
                for name in able.keys() & error.alive - tensors
            }
            before = _work(in_bands(graph, way).graph)
            worth: dict[str, float] = {}
            for name in sorted(age, key=lambda name: (-age[name], name)):
                work = _work_of(graph, tensors | able[name])
                if work <= most:
                    bits = sum(_bits(graph, each) for each in able[name] - tensors)
                    worth[name] = bits / (work - before + _LITTLE * most)
            if not worth:
                return None
            tensors |= able[max(worth, key=lambda name: worth[name])]
        except CapacityError:
            return None
        else:
            return tensors


def _bits(graph: QuantGraph, name: str) -> int:
    tensor = graph.tensors[name]
    return tensor.rows * tensor.channels * tensor.bits


def _work_of(graph: QuantGraph, tensors: frozenset[str]) -> float:
    """Multiplications if tensors pass, without end if they cannot."""
    try:
        return _work(in_bands(graph, Passing(tensors, _MOST)).graph)
    except ValueError:
        return math.inf
