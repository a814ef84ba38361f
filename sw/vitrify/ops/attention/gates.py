"""Heads that are multiplied by gate weights: the integers of the multiplication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.quant import scheme
from vitrify.quant.calibrate import Request, Stats
from vitrify.quant.requant import columns
from vitrify.quant.rounding import Moments
from vitrify.quant.tensors import Float, QTensor

from .integer import QHeadGate
from .plan import AttentionOp, HeadGate

#: A head is calibrated by the rows that chose it if there are so many.
_ROWS = 64
#: Weights below this are taken for it where they are divided by.
_LEAST = 1e-4


@dataclass(frozen=True)
class Gated:
    """What gates make of an attention's result: scale and offset of its channels in the end."""

    scale: float | Float
    offset: float | Float
    gates: tuple[QHeadGate, ...] = ()
    balance: QHeadGate | None = None


def gate_heads(
    op: AttentionOp, v: QTensor, stats: Mapping[Request, Stats], requant_bits: int
) -> Gated:
    """Integers of all gates of ``op``, whose values are ``v``.

    Every channel gets the range of its gated results, before and after the balance.  Offsets end
    at the weights: a row that did not choose a head has zeros there.
    """
    if not op.gates:
        return Gated(v.scale, v.offset)
    count = v.channels
    scale = np.broadcast_to(np.asarray(v.scale, np.float64), (count,)).copy()
    offset = np.broadcast_to(np.asarray(v.offset, np.float64), (count,)).copy()
    made = stats[op.gated_request()].rows.astype(np.float64)
    last, scores = made[:, :count], made[:, count:]
    before = last
    if op.balance is not None:
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        heads = np.repeat(shares, op.balance.heads, axis=1)
        before = last / np.maximum(np.repeat(heads, count // op.heads, axis=1), _LEAST)

    def one(gate: HeadGate, rows: Float) -> QHeadGate:
        dim = count // op.heads
        own = slice(gate.first * dim, (gate.first + sum(gate.heads)) * dim)
        step = _steps(rows[:, own], scale[own] + np.abs(offset[own]) / scheme.INT8_MAX, dim)
        part = columns(
            np.diag(scale[own]), offset[own], step, moments=_uncorrelated(len(step)),
            reach=scheme.INT8_MAX, requant_bits=requant_bits, what=op.name,
        )
        scale[own], offset[own] = step, 0.0
        return QHeadGate(
            logits=gate.logits, first=gate.first, heads=gate.heads, choices=gate.k,
            normalise=gate.normalize, weight=np.diag(part.weight).copy(), requant=part.requant,
        )

    gated = tuple(one(gate, before) for gate in op.gated)
    balance = None if op.balance is None else one(op.balance, last)
    return Gated(scale, offset, gated, balance)


def _steps(rows: Float, largest: Float, dim: int) -> Float:
    """Step of each channel; the ``largest`` that can be of use where few rows chose the head."""
    steps = scheme.channel_steps(rows, np.abs(rows).max(axis=0))
    chosen = np.any(rows.reshape(len(rows), -1, dim), axis=2).sum(axis=0)
    return np.where(np.repeat(chosen, dim) < _ROWS, largest, steps)


def _uncorrelated(count: int) -> Moments:
    """Inputs that know nothing of each other: rounding then leaves a diagonal matrix diagonal."""
    each: npt.NDArray[np.float64] = scheme.INT8_MAX * np.eye(count)
    return Moments(np.concatenate([each, -each]))
