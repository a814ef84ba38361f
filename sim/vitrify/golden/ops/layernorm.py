"""LayerNorm: exact sums on write, finished once a row, applied on read."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.golden.numerics import AnyInt, IntArray, bit_length, round_shift, saturate

_RSQRT = np.array(formats.rsqrt_table(), np.int64)


def finish(
    total: IntArray, squares: IntArray, *, inv_dim: int, inv_shift: int, epsilon: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Mean and reciprocal deviation of each row from Σx and Σx².

    Parameters
    ----------
    total, squares : int64 ``[rows]``
    inv_dim, inv_shift : ``1/D`` as in :func:`vitrify.arch.formats.inv_dim`
    epsilon : added to the variance, ``2*MEAN_FRAC`` fraction bits

    Returns
    -------
    mean : ``MEAN_FRAC`` fraction bits
    shift, mantissa : 1/std = ``mantissa / 2**RSQRT_FRAC / 2**shift`` per step / 2**MEAN_FRAC
    """
    mean = saturate(
        round_shift(total * inv_dim, inv_shift - formats.MEAN_FRAC),
        formats.RESIDUAL_BITS + formats.MEAN_FRAC,  # 1/D may be a trifle too large
    )
    # squares * inv_dim can exceed 63 bits in the worst case: multiply in two halves.
    # 4 * MEAN_FRAC spare low bits keep the rounding of the two halves exact.
    power = _mul_round(squares, inv_dim, inv_shift - 2 * formats.MEAN_FRAC)
    variance = np.maximum(power - mean * mean, 0) + epsilon
    variance = np.maximum(variance, 1)
    shift = (bit_length(variance) + 1) >> 1
    up = formats.RSQRT_INDEX_BITS - 2 * shift
    index = np.where(up >= 0, variance << np.maximum(up, 0), variance >> np.maximum(-up, 0))
    return mean, shift, _RSQRT[index]


def _mul_round(x: IntArray, factor: int, shift: int) -> IntArray:
    """``round(x * factor / 2**shift)`` for products beyond 63 bits (Python integers)."""
    half = 1 << (shift - 1)
    return np.array([(int(v) * factor + half) >> shift for v in x], np.int64)


def apply(
    x: IntArray, mean: IntArray, shift: IntArray, mantissa: IntArray, gain: AnyInt
) -> IntArray:
    """``round((x - mean) * rstd * gain)`` saturated to int8: int32 ``[rows, D]``.

    Parameters
    ----------
    x : int16 ``[rows, D]``
    mean, shift, mantissa : ``[rows]``, from :func:`finish`
    gain : ``[D]``, unsigned 8 bits with ``GAIN_FRAC`` fraction bits
    """
    d = (x.astype(np.int64) << formats.MEAN_FRAC) - mean[:, None]
    right = shift[:, None] - formats.XHAT_FRAC
    normal = np.where(
        right >= 0, round_shift(d, np.maximum(right, 0)), d << np.maximum(-right, 0)
    )
    normal = saturate(normal, formats.XNORM_BITS)
    xhat = round_shift(normal * mantissa[:, None], formats.RSQRT_FRAC)
    y = round_shift(xhat * gain.astype(np.int64), formats.XHAT_FRAC + formats.GAIN_FRAC)
    return saturate(y, 8).astype(np.int32)
