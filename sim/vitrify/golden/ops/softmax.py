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
from vitrify.golden.numerics import IntArray, bit_length, round_shift, saturate

#: Largest fraction of a logit.
_FRACTIONS = (1 << formats.LOGIT_FRAC) - 1


def _weights() -> npt.NDArray[np.uint8]:
    """Weight of a logit so many units below the integer maximum.

    The last entries are those *above* it, -3 … -1, where NumPy looks for negative indices.
    """
    units = np.arange((formats.SOFTMAX_MAX_SHIFT + 1) << formats.LOGIT_FRAC)
    units = np.concatenate([units, np.arange(-_FRACTIONS, 0)])
    fraction = -units & _FRACTIONS
    shift = np.clip(-(-units >> formats.LOGIT_FRAC), 0, formats.SOFTMAX_MAX_SHIFT)
    mantissa = ((1 << formats.LOGIT_FRAC) + fraction) << formats.SOFTMAX_SHIFT
    return round_shift(mantissa, shift).astype(np.uint8)


_WEIGHTS = _weights()
_RECIPROCAL = np.array(formats.reciprocal_table(), np.int64)


def row_max(logits: IntArray) -> IntArray:
    """Integer part of each row's maximum: int64 ``[rows]``, -32 … 31."""
    return (logits.max(axis=1) >> formats.LOGIT_FRAC).astype(np.int64)


def row_sum(total: IntArray) -> IntArray:
    """A row's sum as the statistics memory keeps it: 0 … ``2**SOFTMAX_SUM_BITS - 1``."""
    return np.clip(total, 0, (1 << formats.SOFTMAX_SUM_BITS) - 1)


def exp2(logits: IntArray, maximum: IntArray) -> npt.NDArray[np.uint8]:
    """Softmax weights: uint8 ``[rows, n]``, 0 … 224, for int8 logits and ``row_max``.

    A logit above the row's maximum (possible only for stale memory) counts as exponent 0.
    """
    # Beyond all logits it makes no difference, whatever statistic it is.
    maximum = saturate(maximum, 8 - formats.LOGIT_FRAC + 1)
    below = (maximum[:, None] << formats.LOGIT_FRAC).astype(np.int16) - logits
    # Above the maximum there are one fraction's worth of weights, over and over.
    np.maximum(below, -(-below & _FRACTIONS), out=below)
    return _WEIGHTS[np.minimum(below, len(_WEIGHTS) - _FRACTIONS - 1)]


def reciprocal(total: IntArray) -> tuple[IntArray, IntArray]:
    """Row scale for a row sum: ``(pre_shift, multiplier)`` with post shift ``RECIPROCAL_SHIFT``.

    ``total`` is clipped to at least 128, the weight of a row's maximum.
    """
    total = np.maximum(np.asarray(total, np.int64), 1 << 7)
    n = bit_length(total)
    top = formats.RECIPROCAL_INDEX_BITS + 1
    mantissa = np.where(n >= top, total >> np.maximum(n - top, 0), total << np.maximum(top - n, 0))
    return n - 8, _RECIPROCAL[mantissa & ((1 << formats.RECIPROCAL_INDEX_BITS) - 1)]
