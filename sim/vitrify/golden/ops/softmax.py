"""Base-2 softmax: row maximum on write, weight and row sum on read, one reciprocal a row.

The logits hold ``q.k * log2(e) / sqrt(d)`` in units of 2**-2.  Weights are ``2**s`` with the
mantissa ``1 + frac`` (exact at the integers, 6 % high between them: a bias that the
normalisation cancels), unsigned 8 bits, unnormalised; the sum is that of the same rounded
weights, so rows stay normalised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.numerics import IntArray, bit_length, compilable, round_shift, saturate

#: A maximum beyond these is beyond all logits: it makes no difference which it is.
_MAXIMUM_BITS = 8 - formats.LOGIT_FRAC + 1


def _weights() -> npt.NDArray[np.uint8]:
    """Weight of every logit below every maximum: ``[2**_MAXIMUM_BITS, 256]``, both by their bits.

    A logit above the row's maximum (possible only for stale memory) counts as exponent 0.
    """
    maximum = np.arange(1 << _MAXIMUM_BITS).astype(np.int64)
    maximum -= (maximum >> _MAXIMUM_BITS - 1) << _MAXIMUM_BITS
    logits = np.arange(256).astype(np.uint8).view(np.int8)
    below = (maximum[:, None] << formats.LOGIT_FRAC) - logits
    fraction = -below & ((1 << formats.LOGIT_FRAC) - 1)
    shift = np.clip(-(-below >> formats.LOGIT_FRAC), 0, formats.SOFTMAX_MAX_SHIFT)
    mantissa = ((1 << formats.LOGIT_FRAC) + fraction) << formats.SOFTMAX_SHIFT
    return round_shift(mantissa, shift).astype(np.uint8)


#: What :func:`exp2` finds its weights in.
WEIGHTS = _weights()
_RECIPROCAL = np.array(formats.reciprocal_table(), np.int64)


def row_max(logits: IntArray) -> IntArray:
    """Integer part of each row's maximum: int64 ``[rows]``, -32 … 31."""
    return (logits.max(axis=1) >> formats.LOGIT_FRAC).astype(np.int64)


def row_sum(total: IntArray) -> IntArray:
    """A row's sum as the statistics memory keeps it: 0 … ``2**SOFTMAX_SUM_BITS - 1``."""
    return np.clip(total, 0, (1 << formats.SOFTMAX_SUM_BITS) - 1)


def rows_of(maximum: IntArray) -> IntArray:
    """Row of ``WEIGHTS`` for every maximum, whatever statistic it is."""
    return saturate(maximum, _MAXIMUM_BITS) & (len(WEIGHTS) - 1)


@compilable
def exp2(logits: IntArray, maximum: IntArray) -> npt.NDArray[np.uint8]:
    """Softmax weights: uint8 ``[rows, n]``, 0 … 224, for int8 logits and ``row_max``."""
    return WEIGHTS.take((rows_of(maximum) << 8)[:, None] | logits.astype(np.uint8))


def reciprocal(total: IntArray) -> tuple[IntArray, IntArray]:
    """Row scale for a row sum: ``(pre_shift, multiplier)`` with post shift ``RECIPROCAL_SHIFT``.

    ``total`` is clipped to at least 128, the weight of a row's maximum.
    """
    total = np.maximum(np.asarray(total, np.int64), 1 << 7)
    n = bit_length(total)
    top = formats.RECIPROCAL_INDEX_BITS + 1
    mantissa = np.where(n >= top, total >> np.maximum(n - top, 0), total << np.maximum(top - n, 0))
    return n - 8, _RECIPROCAL[mantissa & ((1 << formats.RECIPROCAL_INDEX_BITS) - 1)]
