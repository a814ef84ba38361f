"""Base-2 softmax: row maximum on write, weight and row sum on read, one reciprocal a row.

The logits hold ``q.k * log2(e) / sqrt(d)`` in units of 2**-2.  Weights are ``2**s`` with the
mantissa ``1 + frac`` (exact at the integers, 6 % high between them: a bias that the
normalisation cancels), unsigned 8 bits, unnormalised; the sum is that of the same rounded
weights, so rows stay normalised.
"""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.golden.numerics import IntArray, bit_length, round_shift

_RECIPROCAL = np.array(formats.reciprocal_table(), np.int64)


def row_max(logits: IntArray) -> IntArray:
    """Integer part of each row's maximum: int64 ``[rows]``, -32 … 31."""
    return (logits.max(axis=1) >> formats.LOGIT_FRAC).astype(np.int64)


def exp2(logits: IntArray, maximum: IntArray) -> IntArray:
    """Softmax weights: int32 ``[rows, n]``, 0 … 224, for int8 logits and ``row_max``.

    A logit above the row's maximum (possible only for stale memory) counts as exponent 0.
    """
    frac = logits.astype(np.int32) & ((1 << formats.LOGIT_FRAC) - 1)
    exponent = maximum[:, None].astype(np.int32) - (logits.astype(np.int32) >> formats.LOGIT_FRAC)
    shift = np.clip(exponent, 0, formats.SOFTMAX_MAX_SHIFT)
    return round_shift(((1 << formats.LOGIT_FRAC) + frac) << formats.SOFTMAX_SHIFT, shift)


def reciprocal(total: IntArray) -> tuple[IntArray, IntArray]:
    """Row scale for a row sum: ``(pre_shift, multiplier)`` with post shift ``RECIPROCAL_SHIFT``.

    ``total`` is clipped to at least 128, the weight of a row's maximum.
    """
    total = np.maximum(np.asarray(total, np.int64), 1 << 7)
    n = bit_length(total)
    top = formats.RECIPROCAL_INDEX_BITS + 1
    mantissa = np.where(n >= top, total >> np.maximum(n - top, 0), total << np.maximum(top - n, 0))
    return n - 8, _RECIPROCAL[mantissa & ((1 << formats.RECIPROCAL_INDEX_BITS) - 1)]
