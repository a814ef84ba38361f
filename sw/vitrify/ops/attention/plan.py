"""Attention in the plan, and the heads that are multiplied by gate weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.arch import formats
from vitrify.ir import attributes_of, shape_of
from vitrify.ops.linear.plan import Stored, int8_in_groups
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Array, ByteNeeds, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, parameter, result_of


@dataclass(frozen=True)
class HeadGate:
    """Heads multiplied by weights: softmax of the ``k`` largest logits, zero for the others.

    ``logits`` is the gate's tensor and ``scores`` the float tensor with the same contents; each
    logit is for the next so many ``heads``, from head ``first`` on.
    """

    logits: str
    scores: str
    first: int
    heads: tuple[int, ...]
    k: int
    normalize: bool


@dataclass(frozen=True)
class Weights:
    """A function of the float tensor ``scores``, by its kind; ``None``: the scores themselves.

    ``shift`` is what these are more than the products.
    """

    scores: str
    kind: str | None
    shift: float = 0.0


@dataclass(frozen=True)
class Positions:
    """What is added to the scores: for each key one channel of a head of an int8 ``tensor``."""

    tensor: str
    keys: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionOp(PlanOp):
    """Attention of three int8 tensors, each of ``row_groups`` runs of rows by itself.

    Weights are the softmax of the scores or, where ``weights`` is given, a function of them; then
    there is no bias.  ``positions``, for every query its own, stand for a bias.  Some heads may be
    ``gated``, and what comes of that ``balance``d, all heads of it.
    """

    q: str
    k: str
    v: str
    heads: int
    scale: float
    row_groups: int = 1
    #: Added to the scores: ``[row groups or 1, heads or 1, queries, keys]`` of a run.
    bias: Array | None = None
    positions: tuple[Positions, ...] = ()
    weights: Weights | None = None
    gated: tuple[HeadGate, ...] = ()
    balance: HeadGate | None = None

    @property
    def gates(self) -> tuple[HeadGate, ...]:
        """All of them, in the order in which they are applied."""
        return self.gated if self.balance is None else (*self.gated, self.balance)

    def reads(self) -> list[tuple[str, int]]:
        positions = (each.tensor for each in self.positions)
        gates = (gate.logits for gate in self.gates)
        return [(name, 0) for name in (self.q, self.k, self.v, *positions, *gates)]

    def channels(self, plan: Plan) -> int:
        return plan.channels(self.v)

    def requests(self, plan: Plan) -> list[Request]:
        scores = [Request(self.weights.scores)] if self.weights else []
        return [self.result(), *scores, *([self.gated_request()] if self.gates else [])]

    def gated_request(self) -> Request:
        """The gated heads, with the balance's logits if there is one."""
        return Request(self.value, beside=self.balance.scores if self.balance else None)

    def passes_on(self, tensor: str) -> bool:
        return tensor == self.v and self.weights is None

    def needs(self, tensor: str) -> ByteNeeds:
        """What softmax and the sums over channels and keys do not absorb.

        A constant in all keys moves all logits of a query alike: softmax does not see it.  The
        weights of all values add up to one: a constant passes on to the result.  Only queries and
        positions must keep theirs.  Other functions absorb nothing.
        """
        if self.weights is not None:
            return ByteNeeds(one_step=True, zero=True, symmetric=True)
        kept = (self.q, *(each.tensor for each in self.positions))
        return ByteNeeds(one_step=tensor in (*kept, self.k), zero=tensor in kept, symmetric=True)


def plan_attention(planner: Planner, node: ir.Node) -> Stored:
    """``Attention``, ``RoutedHeads`` and ``BalancedHeads`` of int8 queries, keys and values."""
    attributes, name = attributes_of(node), result_of(node)
    heads = planner.groups[name] = attributes["heads"]
    q, k, v = (int8_in_groups(planner, node, i, heads) for i in range(3))
    gated, balance = _gates(node, lambda i: planner.of(node, i).logits(planner, node))
    planner.append(AttentionOp(
        name=node.name or name, out=name, value=name, q=q, k=k, v=v, heads=heads,
        scale=attributes["scale"], gated=gated, balance=balance,
    ))
    return Stored(Operand(name, name))


def plan_cross_attention(planner: Planner, node: ir.Node) -> Stored:
    """``CrossAttention`` by softmax, of queries and keys of any number and width of values."""
    attributes, name = attributes_of(node), result_of(node)
    bias = parameter(node, 3)
    # Softmax does not see what all scores of a query have in common.
    seen = bool(np.any(bias != bias[..., :1]))
    q_value, k_value = node.inputs[:2]
    assert q_value is not None
    assert k_value is not None
    queries, keys = (int(shape_of(x)[1]) // attributes["groups"] for x in (q_value, k_value))
    heads = planner.groups[name] = attributes["heads"]
    q, k, v = (int8_in_groups(planner, node, i, heads) for i in range(3))
    planner.append(AttentionOp(
        name=node.name or name, out=name, value=name, q=q, k=k, v=v, heads=heads,
        scale=attributes["scale"], row_groups=attributes["groups"],
        bias=np.broadcast_to(bias, (*bias.shape[:2], queries, keys)) if seen else None,
    ))
    return Stored(Operand(name, name))


def plan_relative_attention(planner: Planner, node: ir.Node) -> Stored:
    """``RelativeAttention``: positions are int8 tensors like queries."""
    attributes, name = attributes_of(node), result_of(node)
    heads = planner.groups[name] = attributes["heads"]
    q, k, v, *terms = (int8_in_groups(planner, node, i, heads) for i in range(5))
    planner.append(AttentionOp(
        name=node.name or name, out=name, value=name, q=q, k=k, v=v, heads=heads,
        scale=attributes["scale"], row_groups=attributes["groups"], positions=tuple(
            Positions(tensor, tuple(attributes[keys]))
            for tensor, keys in zip(terms, ("x_keys", "y_keys"), strict=True)
        ),
    ))
    return Stored(Operand(name, name))


def _gates(
    node: ir.Node, gate: Callable[[int], tuple[str, str]]
) -> tuple[tuple[HeadGate, ...], HeadGate | None]:
    """``gated`` and ``balance`` of an attention.

    Parameters
    ----------
    gate : makes logits for the router of an operand; their tensor, and the float tensor's name

    Raises
    ------
    UnsupportedOpError
        If the router cannot weigh as many heads.
    """
    names = ("routed", "shared", "balance")
    sizes = {
        name: int(shape_of(value)[-1])
        for name, value in zip(names, node.inputs[3:], strict=False) if value is not None
    }

    def one(name: str, first: int, k: int, normalize: bool = False) -> HeadGate:
        if k > formats.MAX_CHOICES:
            raise unsupported(
                node, f"it weighs {k} of {sizes[name]} heads by one softmax, and the core's "
                f"router weighs at most {formats.MAX_CHOICES}"
            )
        logits, scores = gate(3 + names.index(name))
        return HeadGate(logits, scores, first, (1,) * sizes[name], k, normalize)

    if not sizes:
        return (), None
    attributes = attributes_of(node)
    shared, gated, balance = attributes["heads"] - sizes["routed"], [], None
    # The softmax of a single logit is one.
    if sizes["routed"] > 1:
        gated.append(one("routed", shared, attributes["k"], bool(attributes["normalize"])))
    if sizes.get("shared", 1) > 1:
        gated.append(one("shared", 0, shared))
    if "balance" in sizes:
        balance = replace(one("balance", 0, 2), heads=(shared, sizes["routed"]))
    return tuple(gated), balance
