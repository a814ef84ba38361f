"""Mixtures: results weighed by a router and added up, and the canonical operation that they are."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of, attributes_of, shape_of

from .fold import hints_of
from .mixed import Gating, Mixture, Term, joined
from .on_elementwise import add_views
from .on_gate import as_gating, known
from .on_heads import route_heads, weighs_heads
from .routing import Routing, recognise
from .trace import ANY, HANDLERS, Tracer, constant, handles
from .values import Const, Traced, Unfit, View

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand")
_PLAIN = "use experts of two linear layers with an activation between them, on the same tokens"


def weigh(tracer: Tracer, gating: Gating, value: Traced) -> Mixture:
    """``gating * value``."""
    if not isinstance(value, Mixture):
        value = Mixture([Term(tracer.view(value))], (), gating.node)
    shape = np.broadcast_shapes(gating.shape, value.shape)

    def spread(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, shape)

    terms = []
    for term in value.terms:
        pairs = zip(gating.arrays, term.weights(), strict=True)
        weight = [spread(own) * spread(old) for own, old in pairs]
        terms.append(Term(term.view.moved(spread), weight))
    return Mixture(terms, joined(gating, value), gating.node)


def total(tracer: Tracer, values: list[Traced]) -> Traced:
    """The sum of mixtures and views."""
    # one that something else needed is complete: the residual stream of the next block, say
    values = [
        resolve(tracer, value)
        if isinstance(value, Mixture) and (value.view or value.parent)
        else value
        for value in values
    ]
    if not any(isinstance(value, Mixture) for value in values):
        views = [tracer.view(value) for value in values]
        result = views[0]
        for view in views[1:]:
            result = add_views(tracer, result, view)
        return result
    mixtures = [value for value in values if isinstance(value, Mixture)]
    node = mixtures[0].node
    parts = [
        value if isinstance(value, Mixture) else Mixture([Term(tracer.view(value))], (), node)
        for value in values
    ]
    shape = np.broadcast_shapes(*(part.shape for part in parts))
    wide = [part.moved(lambda array: np.broadcast_to(array, shape)) for part in parts]
    return Mixture([term for part in wide for term in part.terms], joined(*mixtures), node)


@handles("Mul", kind=Gating)
def scale(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A weight times a result, or arithmetic inside the router."""
    x, y = (value for value in inputs if value is not None)
    if as_gating(tracer, node, x) is not None and as_gating(tracer, node, y) is not None:
        return known(tracer, node, inputs)
    gating, value = (x, y) if isinstance(x, Gating) else (y, x)
    assert isinstance(gating, Gating), "the kind of this handler"
    return [weigh(tracer, gating, value)]


@handles("Where", kind=Gating)
def where(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """A result where a router says so, zero elsewhere."""
    given = [value for value in inputs if value is not None]
    if all(as_gating(tracer, node, value) is not None for value in given):
        return known(tracer, node, inputs)
    mask, chosen, other = given
    if not isinstance(mask, Gating):
        raise Unfit("it selects by something else than the decision of a router")
    if isinstance(chosen, Const):
        mask, chosen, other = mask.moved(np.logical_not), other, chosen
    if not isinstance(other, Const) or other.array.any():
        raise Unfit("it has something else than zero where a router did not choose an expert")
    return [weigh(tracer, mask.moved(lambda array: array.astype(np.float32)), chosen)]


@handles("Mul", "Div", kind=Mixture)
def scale_mixture(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """By a weight of a router, or by a constant."""
    x, y = (value for value in inputs if value is not None)
    mixture, other = (x, y) if isinstance(x, Mixture) else (y, x)
    assert isinstance(mixture, Mixture), "the kind of this handler"
    if isinstance(other, Gating) and node.op_type == "Mul":
        return [weigh(tracer, other, mixture)]
    factor = constant(other, "factor")
    if node.op_type == "Div" and (other is x or not factor.array.all()):
        raise Unfit("it divides by a mixture of experts or by zero")
    number = factor.array.astype(np.float64)
    number = 1.0 / number if node.op_type == "Div" else number
    shape = np.broadcast_shapes(mixture.shape, number.shape)
    wide = mixture.moved(lambda array: np.broadcast_to(array, shape))
    terms = [Term(term.view.affine(number, 0.0, factor.name), term.weight) for term in wide.terms]
    return [Mixture(terms, mixture.gates, mixture.node)]


@handles("Add", "Sum", kind=Mixture)
def add(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """More experts, the residual stream, a shared expert; they are sorted out in the end."""
    values = [value for value in inputs if value is not None]
    constants = [value for value in values if isinstance(value, Const)]
    if any(value.array.any() for value in constants):
        return plainly(tracer, node, inputs)
    return [total(tracer, [value for value in values if not isinstance(value, Const)])]


@handles(*_MOVES, kind=Mixture)
def move(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Data movement."""
    mixture, *rest = inputs
    if not isinstance(mixture, Mixture):
        raise Unfit("where it moves elements to depends on the image")
    others = [None if value is None else constant(value, "operand").array for value in rest]
    return [mixture.moved(lambda array: tracer.execute(node, [array, *others])[0])]


@handles(ANY, kind=Mixture)
def plainly(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Whatever uses the result of a mixture as a tensor."""
    handler = HANDLERS.get((node.domain, node.op_type, None))
    if handler is None:
        raise Unfit("no operation of a vision transformer is made of it")
    made = [tracer.view(value) if isinstance(value, Mixture) else value for value in inputs]
    return handler(tracer, node, list(made))


@dataclass
class _Expert:
    """The parameters of one expert, its tokens, and its weight for them in all draws."""

    x: ir.Value
    rows: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    kind: str
    weight: np.ndarray
    hints: tuple[str, ...]


def _expert(tensor: ir.Value, rows: np.ndarray, weight: np.ndarray, node: ir.Node) -> _Expert:
    """Read the two linear layers that made ``tensor``."""
    last = tensor.producer()
    act = None if last is None or last.op_type != "Linear" else _producer(last)
    first = None if act is None or act.op_type != "Activation" else _producer(act)
    if last is None or act is None or first is None or first.op_type != "Linear":
        raise Unfit("it weighs something else than experts", _PLAIN, node)
    x, w1, b1 = (value for value in first.inputs if value is not None)
    _, w2, b2 = (value for value in last.inputs if value is not None)
    kind = attributes_of(act)["kind"]
    return _Expert(
        x, rows, array_of(w1), array_of(b1), array_of(w2), array_of(b2), kind, weight,
        hints_of(tensor),
    )  # fmt: skip


def _producer(node: ir.Node) -> ir.Node | None:
    return None if node.inputs[0] is None else node.inputs[0].producer()


def _by_token(weight: list[np.ndarray], node: ir.Node) -> np.ndarray:
    """Weights of elements as weights of tokens, [draws, ...]."""
    stacked = np.stack(weight)
    if not (stacked == stacked[..., :1]).all():
        raise Unfit("it weighs the channels of a token unevenly", _PLAIN, node)
    return stacked[..., 0]


def resolve(tracer: Tracer, mixture: Mixture) -> View:
    """The view that a mixture is, emitting ``Experts`` or routed heads and what is added to it."""
    if mixture.view is None and mixture.parent is not None:
        whole, move = mixture.parent
        mixture.view = resolve(tracer, whole).moved(move)
    elif mixture.view is None:
        mixture.view = _resolve(tracer, mixture)
    return mixture.view


def _resolve(tracer: Tracer, mixture: Mixture) -> View:
    weighed: dict[ir.Value, tuple[np.ndarray, np.ndarray]] = {}
    plain: list[View] = []
    for term in mixture.terms:
        if term.weight is None or weighs_heads(term):
            heads = term.weight is not None
            plain.append(route_heads(tracer, mixture, term) if heads else term.view)
            continue
        tensor, rows = tracer.settler.settle(term.view)
        seen, weight = weighed.get(tensor, (rows, np.zeros(1)))
        if not np.array_equal(rows, seen):
            raise Unfit("its experts stand at different places", _PLAIN, mixture.node)
        weighed[tensor] = rows, weight + _by_token(term.weight, mixture.node)
    # the residual stream first, then what linear layers made of it, then the experts
    plain.sort(key=lambda view: _is_linear(view.base))
    rest = functools.reduce(lambda x, y: add_views(tracer, x, y), plain) if plain else None
    if rest is not None and not weighed:
        return rest
    if rest is not None:
        tracer.settler.settle(rest)
    experts = [_expert(tensor, *found, mixture.node) for tensor, found in weighed.items()]
    result = _emit(tracer, mixture, experts)
    return result if rest is None else add_views(tracer, rest, result)


def _is_linear(tensor: ir.Value) -> bool:
    node = tensor.producer()
    return node is not None and node.op_type == "Linear"


def _emit(tracer: Tracer, mixture: Mixture, experts: list[_Expert]) -> View:
    first = experts[0]
    for expert in experts:
        same = expert.x is first.x and np.array_equal(expert.rows, first.rows)
        if not same or expert.kind != first.kind or expert.w1.shape != first.w1.shape:
            reason = "its experts differ in their tokens, their activation or their size"
            raise Unfit(reason, _PLAIN, mixture.node)
    if len(mixture.gates) != 1:
        reason = "it weighs experts by more than one router"
        raise Unfit(reason, "use the logits of one gate", mixture.node)
    gate = mixture.gates[0]
    if shape_of(gate.tensor)[:-1] != shape_of(first.x)[:-1]:
        reason = "its router does not decide about every token of its experts"
        raise Unfit(reason, _PLAIN, mixture.node)
    rows = first.rows.ravel()
    weights = np.concatenate(
        [np.stack([e.weight[draw].ravel() for e in experts], 1) for draw in range(len(gate.draws))]
    )
    logits = np.concatenate([draw[rows] for draw in gate.draws])
    try:
        routing = recognise(weights.astype(np.float64), logits)
    except Unfit as error:
        raise Unfit(str(error), error.fix, mixture.node) from error
    result = tracer.settler.emit(
        "Experts", first.x, gate.tensor, *_stacked(experts, routing),
        k=routing.k, normalize=routing.normalize, kind=first.kind,
        hints=tuple(hint for expert in experts for hint in expert.hints),
    )  # fmt: skip
    return tracer.settler.view_of_rows(result, first.rows)


def _stacked(experts: list[_Expert], routing: Routing) -> list[np.ndarray]:
    """The parameters of all experts, in the order of their logits."""
    order = np.argsort(routing.expert)
    factor = routing.factor[order]
    return [
        np.stack([experts[place].w1 for place in order]),
        np.stack([experts[place].b1 for place in order]),
        np.stack([experts[place].w2 for place in order]) * factor[:, None, None],
        np.stack([experts[place].b2 for place in order]) * factor[:, None],
    ]
