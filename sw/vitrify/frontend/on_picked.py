"""Tokens that a router picked: experts that compute their own tokens only, and put them back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .mixed import DRAWS, Gating, Mixture, Picked, Place, Term, joined
from .on_gate import known
from .on_stack import ELEMENTWISE
from .trace import Tracer, attribute, handler_of, handles
from .values import Const, Traced, Unfit

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand")
_BACK = "add the results of an expert to the tokens that were picked for it"


def _at(value: Traced | None, draw: int) -> np.ndarray | None:
    """The numbers of an operand in one draw."""
    match value:
        case None:
            return None
        case Const():
            return value.array
        case Gating():
            return value.arrays[draw]
    raise Unfit("where it moves elements to depends on activations")


@handles("Gather", "GatherND", kind=Gating)
def pick(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Tokens by the numbers that a router gives."""
    data, index = inputs
    if data is None or isinstance(data, Const | Gating) or not isinstance(index, Gating):
        return known(tracer, node, inputs)
    terms = data.terms if isinstance(data, Mixture) else [Term(tracer.view(data))]
    places = []
    for term in terms:
        size = term.view.shape
        numbers = np.arange(np.prod(size)).reshape(size)
        found = [tracer.execute(node, [numbers, _at(index, draw)])[0] for draw in range(DRAWS)]
        weight = None
        if term.weight is not None:
            weight = [array.ravel()[where] for array, where in zip(term.weight, found, strict=True)]
        places.append(Place(term.view, found, weight))
    gates = joined(index, data) if isinstance(data, Mixture) else index.gates
    return [Picked(places, gates, index.node)]


@handles("Gather", "GatherND", kind=Mixture)
def pick_mixture(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Results so far, before those of another expert are added; or data movement."""
    from .on_experts import move

    picks = isinstance(inputs[1], Gating)
    return pick(tracer, node, inputs) if picks else move(tracer, node, inputs)


@handles(*_MOVES, kind=Picked)
def move(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Data movement, to shapes that depend on the number of tokens as well."""
    picked, *rest = inputs
    if not isinstance(picked, Picked):
        raise Unfit("where it moves elements to depends on the image")

    def moves(draw: int, array: np.ndarray) -> np.ndarray:
        return tracer.execute(node, [array, *(_at(value, draw) for value in rest)])[0]

    return [picked.moved(moves)]


@handles("Shape", "Size", kind=Picked)
def shape(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Known in every draw."""
    picked = inputs[0]
    assert isinstance(picked, Picked), "the kind of this handler"
    arrays = [tracer.execute(node, [index])[0] for index in picked.places[0].index]
    return [Gating(arrays, picked.gates, picked.node)]


def _plain(picked: Picked) -> Place:
    """The one part of a value that was picked and not weighed yet."""
    if len(picked.places) != 1 or picked.places[0].weight is not None:
        raise Unfit("it computes with results that a router has weighed already", _BACK)
    return picked.places[0]


def _same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


@handles(*ELEMENTWISE, "MatMul", "Gemm", kind=Picked)
def compute(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """What is done to the picked tokens may as well be done to all of them."""
    values = [value for value in inputs if value is not None]
    if node.op_type == "Mul" and any(isinstance(value, Gating) for value in values):
        return [_weigh(values)]
    if node.op_type == "Add" and (summed := _sum(values)) is not None:
        return [summed]
    picked = [value for value in values if isinstance(value, Picked)]
    places = [_plain(value) for value in picked]
    if not all(_same(place.index, places[0].index) for place in places):
        raise Unfit("it combines tokens that were picked for different experts")
    sources = iter(place.source for place in places)
    operands: list[Traced | None] = [
        next(sources) if isinstance(value, Picked) else value for value in inputs
    ]
    handler = handler_of(node, operands)
    if handler is None or any(isinstance(value, Gating) for value in operands):
        raise Unfit("it combines picked tokens with the decisions of a router", _BACK)
    result = handler(tracer, node, operands)[0]
    index = places[0].index
    old, new = places[0].source.shape[-1], result.shape[-1]
    if old != new or node.op_type in ("MatMul", "Gemm"):
        index = [_rows(array, old)[..., None] * new + np.arange(new) for array in index]
    return [Picked([Place(result, index)], joined(*picked), picked[0].node)]


def _rows(index: np.ndarray, width: int) -> np.ndarray:
    """The tokens behind picked elements that are whole tokens."""
    rows = index[..., 0] // width if index.shape[-1] else index[..., :0]
    if not np.array_equal(index, rows[..., None] * width + np.arange(width)):
        raise Unfit("it works on parts of picked tokens")
    return rows


def _weigh(values: list[Traced]) -> Picked:
    picked, gating = values if isinstance(values[0], Picked) else values[::-1]
    if not isinstance(picked, Picked) or not isinstance(gating, Gating):
        raise Unfit("it combines picked tokens with the decisions of a router", _BACK)
    places = []
    for place in picked.places:
        old = place.weight or [np.ones(index.shape, np.float32) for index in place.index]
        pairs = zip(old, gating.arrays, strict=True)
        places.append(Place(place.source, place.index, [one * other for one, other in pairs]))
    return Picked(places, joined(picked, gating), gating.node)


def _sum(values: list[Traced]) -> Picked | None:
    """Results of several experts for the same tokens; ``None`` for sums inside an expert."""
    picked = [value for value in values if isinstance(value, Picked)]
    rest = [value for value in values if not isinstance(value, Picked)]
    if any(not isinstance(v, Gating) or any(a.any() for a in v.arrays) for v in rest):
        return None
    places = [place for value in picked for place in value.places]
    if not rest and len(places) == 2 and all(place.weight is None for place in places):
        return None
    return Picked(places, joined(*picked), picked[0].node)


def targets_of(
    node: ir.Node, shape: tuple[int, ...], index: np.ndarray, update: tuple[int, ...]
) -> np.ndarray:
    """The element of the target that each element of the updates goes to."""
    if node.op_type == "ScatterElements":
        grid = list(np.indices(index.shape))
        axis = attribute(node, "axis", 0) % len(shape)
        grid[axis] = index % shape[axis]
        return np.asarray(np.ravel_multi_index(tuple(grid), shape))
    depth = index.shape[-1]
    parts = tuple(index[..., place] % shape[place] for place in range(depth))
    block = int(np.prod(shape[depth:]))
    first = np.ravel_multi_index(parts, shape[:depth]) * block
    return (first[..., None] + np.arange(block)).reshape(update)


@handles("ScatterND", "ScatterElements", kind=Picked)
def put_back(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Results of an expert to the places of its tokens: one more term of a mixture."""
    data, index, updates = inputs
    if data is None or not isinstance(index, Gating) or not isinstance(updates, Picked):
        raise Unfit("it places results elsewhere than a router says", _BACK)
    shape = data.shape
    mode = attribute(node, "reduction", "none")
    if mode not in ("none", "add"):
        raise Unfit(f"it combines results by {mode}", _BACK)
    terms = _standing(tracer, data)
    where = [
        targets_of(node, shape, index.arrays[draw], updates.places[0].index[draw].shape)
        for draw in range(DRAWS)
    ]
    if mode == "none":
        for term in terms:
            term.weight = [
                _without(array, places) for array, places in zip(term.weights(), where, strict=True)
            ]
    for place in updates.places:
        if not _same(place.index, where):
            raise Unfit("it puts results to other tokens than they were computed from", _BACK)
        weight = []
        for draw in range(DRAWS):
            dense = np.zeros(int(np.prod(shape)), np.float32)
            own = 1.0 if place.weight is None else place.weight[draw].ravel()
            np.add.at(dense, where[draw].ravel(), own)
            weight.append(dense.reshape(shape))
        view = tracer.view(place.source).moved(lambda array: array.reshape(shape))
        terms.append(Term(view, weight))
    gates = joined(updates, index)
    if isinstance(data, Mixture):
        gates = joined(updates, index, data)
    return [Mixture(terms, gates, updates.node)]


def _standing(tracer: Tracer, data: Traced) -> list[Term]:
    """What the results are put among."""
    if isinstance(data, Const):
        if data.array.any():
            raise Unfit("it puts results among constants", _BACK)
        return []
    if isinstance(data, Mixture):
        return [Term(term.view, term.weight) for term in data.terms]
    return [Term(tracer.view(data))]


def _without(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1).copy()
    flat[places.ravel()] = 0.0
    return flat.reshape(array.shape)
