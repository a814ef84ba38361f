"""Mixture of experts: base-2 softmax over gate logits, top-k, and one queue of rows per expert.

The logits hold ``z * log2(e)`` in units of ``2**-GATE_LOGIT_FRAC``, so a weight below the row's
best is ``2**-d``: a table for the fraction of ``d``, a shift for its integer part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.numerics import AnyInt, IntArray, round_shift

from .softmax import reciprocal

_TABLE = np.array(formats.gate_table(), np.int64)
#: Beyond this shift every entry of the table rounds to zero.
_MAX_SHIFT = formats.ROUTE_BITS + 1
#: Shift behind weight times reciprocal, less the reciprocal's own shift.
_GATE_SHIFT = formats.RECIPROCAL_SHIFT - formats.GATE_FRAC


@dataclass(frozen=True)
class Queues:
    """Rows by expert: those of expert ``e`` are entries ``start[e]`` to ``start[e] + count[e]``.

    ``row``, ``weight`` (unsigned, ``GATE_FRAC``) and ``first`` have ``rows * choices`` entries;
    within a queue rows ascend.  ``first`` marks the entry of a row in the lowest of its experts.
    """

    start: IntArray
    count: IntArray
    row: IntArray
    weight: IntArray
    first: npt.NDArray[np.bool_]


def choose(logits: AnyInt, choices: int) -> IntArray:
    """The experts of each row, best first, of equal ones the lower number: ``[rows, choices]``."""
    return np.argsort(-logits.astype(np.int64), axis=1, kind="stable")[:, :choices]


def weights(logits: AnyInt, best: AnyInt) -> IntArray:
    """Softmax weights ``0 … 2**ROUTE_BITS - 1`` of logits ``[rows, n]`` below ``best [rows]``."""
    below = best.astype(np.int64)[:, None] - logits
    shift = np.minimum(below >> formats.GATE_LOGIT_FRAC, _MAX_SHIFT)
    return round_shift(_TABLE[below & (len(_TABLE) - 1)], shift)


def gate(logits: AnyInt, choices: int, *, normalise: bool) -> tuple[IntArray, IntArray]:
    """Experts and gate weights of each row, ``[rows, choices]``, best first.

    A weight is the expert's part of the softmax over all experts, or with ``normalise`` over the
    chosen ones: unsigned with ``GATE_FRAC`` fraction bits, at most 1.
    """
    experts = choose(logits, choices)
    chosen = np.take_along_axis(logits, experts, axis=1)
    own = weights(chosen, chosen[:, 0])
    total = (own if normalise else weights(logits, chosen[:, 0])).sum(axis=1)
    shift, factor = reciprocal(total)
    value = round_shift(own * factor[:, None], (shift + _GATE_SHIFT)[:, None])
    return experts, np.minimum(value, 1 << formats.GATE_FRAC)


def queues(experts: IntArray, weight: IntArray, count: int) -> Queues:
    """Sort the choices ``[rows, choices]`` into the queues of ``count`` experts, without gaps."""
    rows, choices = experts.shape
    first = experts == experts.min(axis=1, keepdims=True)
    order = np.argsort(experts.reshape(-1), kind="stable")
    counts = np.bincount(experts.reshape(-1), minlength=count)
    return Queues(
        start=np.cumsum(counts) - counts,
        count=counts,
        row=np.repeat(np.arange(rows), choices)[order],
        weight=weight.reshape(-1)[order],
        first=first.reshape(-1)[order],
    )


def scale(multiplier: AnyInt | int, weight: IntArray) -> IntArray:
    """Requantisation multipliers ``[rows, columns or 1]`` with the gate weight in them."""
    product = np.asarray(multiplier, np.int64).reshape(1, -1) * weight[:, None]
    return round_shift(product, formats.GATE_FRAC)
