"""Heads that are multiplied by gate weights: which, and the integers of the multiplication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch import formats
from vitrify.ir import attributes_of, shape_of

from . import scheme
from .calibrate import Request, Stats
from .graph import Float, QTensor, QWeighing
from .plan import AttentionOp, Weighing, unsupported
from .requant import columns
from .rounding import Moments

#: A head is calibrated by the rows that chose it if there are so many.
_ROWS = 64
#: Weights below this are taken for it where they are divided by.
_LEAST = 1e-4


# Plan --------------------------------------------------------------------------------------
def weighings(
    node: ir.Node, gate: Callable[[int], tuple[str, str]]
) -> tuple[tuple[Weighing, ...], Weighing | None]:
    """``weighed`` and ``balance`` of an attention.

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

    def one(name: str, first: int, k: int, normalize: bool = False) -> Weighing:
        if k > formats.MAX_CHOICES:
            raise unsupported(
                node, f"it weighs {k} of {sizes[name]} heads by one softmax, and the core's "
                f"router weighs at most {formats.MAX_CHOICES}"
            )
        logits, scores = gate(3 + names.index(name))
        return Weighing(logits, scores, first, (1,) * sizes[name], k, normalize)

    if not sizes:
        return (), None
    attributes = attributes_of(node)
    shared, weighed, balance = attributes["heads"] - sizes["routed"], [], None
    # The softmax of a single logit is one.
    if sizes["routed"] > 1:
        weighed.append(one("routed", shared, attributes["k"], bool(attributes["normalize"])))
    if sizes.get("shared", 1) > 1:
        weighed.append(one("shared", 0, shared))
    if "balance" in sizes:
        balance = replace(one("balance", 0, 2), heads=(shared, sizes["routed"]))
    return tuple(weighed), balance


# Integers ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weighed:
    """What weighings make of an attention's result: scale and offset of its channels in the end."""

    scale: float | Float
    offset: float | Float
    weighed: tuple[QWeighing, ...] = ()
    balance: QWeighing | None = None


def weighed_request(op: AttentionOp) -> Request:
    """The weighed heads, with the balance's logits if there is one."""
    return Request(op.value, beside=op.balance.scores if op.balance else None)


def weigh(
    op: AttentionOp, v: QTensor, stats: Mapping[Request, Stats], requant_bits: int
) -> Weighed:
    """Integers of all weighings of ``op``, whose values are ``v``.

    Every channel gets the range of its weighed results, before and after the balance.  Offsets end
    at the weights: a row that did not choose a head has zeros there.
    """
    if not op.weighings:
        return Weighed(v.scale, v.offset)
    count = v.channels
    scale = np.broadcast_to(np.asarray(v.scale, np.float64), (count,)).copy()
    offset = np.broadcast_to(np.asarray(v.offset, np.float64), (count,)).copy()
    made = stats[weighed_request(op)].rows.astype(np.float64)
    last, scores = made[:, :count], made[:, count:]
    before = last
    if op.balance is not None:
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        heads = np.repeat(shares, op.balance.heads, axis=1)
        before = last / np.maximum(np.repeat(heads, count // op.heads, axis=1), _LEAST)

    def one(weighing: Weighing, rows: Float) -> QWeighing:
        dim = count // op.heads
        own = slice(weighing.first * dim, (weighing.first + sum(weighing.heads)) * dim)
        step = _steps(rows[:, own], scale[own] + np.abs(offset[own]) / scheme.INT8_MAX, dim)
        part = columns(
            np.diag(scale[own]), offset[own], step, moments=_uncorrelated(len(step)),
            reach=scheme.INT8_MAX, requant_bits=requant_bits, what=op.name,
        )
        scale[own], offset[own] = step, 0.0
        return QWeighing(
            weighing.logits, weighing.first, weighing.heads, weighing.k, weighing.normalize,
            np.diag(part.weight).copy(), part.requant,
        )

    weighed = tuple(one(weighing, before) for weighing in op.weighed)
    balance = None if op.balance is None else one(op.balance, last)
    return Weighed(scale, offset, weighed, balance)


def _steps(rows: Float, largest: Float, dim: int) -> Float:
    """Step of each channel; the ``largest`` that can be of use where few rows chose the head."""
    steps = scheme.channel_steps(rows, np.abs(rows).max(axis=0))
    chosen = np.any(rows.reshape(len(rows), -1, dim), axis=2).sum(axis=0)
    return np.where(np.repeat(chosen, dim) < _ROWS, largest, steps)


def _uncorrelated(count: int) -> Moments:
    """Inputs that know nothing of each other: rounding then leaves a diagonal matrix diagonal."""
    each: npt.NDArray[np.float64] = scheme.INT8_MAX * np.eye(count)
    return Moments(np.concatenate([each, -each]))
