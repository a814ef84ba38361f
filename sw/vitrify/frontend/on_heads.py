"""Mixtures of heads: the heads of an attention, weighed by a router before the projection."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of

from .fold import fold
from .mixed import Gate, Mixture, Term
from .routing import TOLERANCE, Routing, recognise, weights_of
from .values import Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer

_FIX = (
    "weigh the last heads by the softmax of a gate's logits, and the others not at all "
    "or as in mixture-of-head attention"
)


def weighs_heads(term: Term) -> bool:
    """Whether a term of a mixture is the result of an attention."""
    node = term.view.base.producer()
    return term.weight is not None and node is not None and node.op_type == "Attention"


def route_heads(tracer: Tracer, mixture: Mixture, term: Term) -> View:
    """The view that weighed heads are, emitting ``RoutedHeads`` or ``BalancedHeads``."""
    tensor, rows = tracer.settler.settle(term.view)
    node = tensor.producer()
    if node is None or node.op_type != "Attention":
        # other rows or channels than those of the heads: settling has made another tensor
        raise Unfit("it weighs something else than the heads of an attention", _FIX, mixture.node)
    q, k, v = (value for value in node.inputs if value is not None)
    attributes = attributes_of(node)
    heads = attributes["heads"]
    weights = np.stack(term.weights()).astype(np.float64)
    weights = weights.reshape(-1, heads, weights.shape[-1] // heads)
    if not np.array_equal(weights, np.broadcast_to(weights[..., :1], weights.shape)):
        raise Unfit("it weighs the channels of a head unevenly", _FIX, mixture.node)
    weight = weights[..., 0]
    if any(shape_of(gate.tensor)[:-1] != shape_of(q)[:-1] for gate in mixture.gates):
        raise Unfit("its router does not decide about every token", _FIX, mixture.node)
    logits = [np.concatenate([draw[rows.ravel()] for draw in gate.draws]) for gate in mixture.gates]
    found = _one_gate(mixture.gates, weight, logits) or _stages(
        tracer, mixture.gates, weight, logits
    )
    if found is None:
        reason = "it weighs heads by something else than the softmax of a router's logits"
        raise Unfit(reason, _FIX, mixture.node)
    name, operands, routing, factor = found
    result = tracer.settler.emit(
        name, q, k, v, *operands,
        heads=heads, scale=attributes["scale"], k=routing.k, normalize=routing.normalize,
    )  # fmt: skip
    view = tracer.settler.view_of_rows(result, rows)
    return view.affine(np.repeat(factor, weights.shape[2]), 0.0)


_Found = tuple[str, list[ir.Value], Routing, np.ndarray]


def _routed(weight: np.ndarray, logits: np.ndarray) -> Routing | None:
    """The router of all the heads given, in the order of its logits."""
    try:
        routing = recognise(weight, logits)
    except Unfit:
        return None
    in_order = np.array_equal(routing.expert, np.arange(weight.shape[1]))
    return routing if in_order else None


def _one_gate(
    gates: tuple[Gate, ...], weight: np.ndarray, logits: list[np.ndarray]
) -> _Found | None:
    """The last heads weighed by one gate, those before by constants."""
    shared = weight.shape[1] - logits[0].shape[1]
    if len(gates) != 1 or shared < 0:
        return None
    constant = weight[0, :shared]
    routing = _routed(weight[:, shared:], logits[0])
    if routing is None or np.abs(weight[:, :shared] - constant).max(initial=0.0) > TOLERANCE:
        return None
    return "RoutedHeads", [gates[0].tensor], routing, np.concatenate([constant, routing.factor])


def _stages(
    tracer: Tracer, gates: tuple[Gate, ...], weight: np.ndarray, logits: list[np.ndarray]
) -> _Found | None:
    """A gate that balances the shared heads, with a gate or one only, against the routed ones."""
    heads = weight.shape[1]
    for order in itertools.permutations(range(len(gates))):
        balance, routed, *rest = (logits[number] for number in order) if len(gates) > 1 else (
            np.zeros((1, 0)), np.zeros((1, 0)),
        )  # fmt: skip
        shared = rest[0] if rest else np.zeros((len(balance), 1))
        sizes = (balance.shape[1], shared.shape[1] + routed.shape[1])
        if sizes != (2, heads) or len(rest) > 1:
            continue
        stage = weights_of(balance, 2, 0)
        count = shared.shape[1]
        first = _routed(weight[:, :count] / stage[:, :1], shared)
        second = _routed(weight[:, count:] / stage[:, 1:], routed)
        if first is None or second is None or first.k != count:
            continue
        tensors = [gates[number].tensor for number in order]
        if not rest:
            # one logit of any kind: its softmax is one
            tensors.append(fold(tracer.builder, tensors[0], np.arange(1)))
        operands = [tensors[1], tensors[2], tensors[0]]
        return "BalancedHeads", operands, second, np.concatenate([first.factor, second.factor])
    return None
