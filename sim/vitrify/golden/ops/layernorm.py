"""LayerNorm: exact sums on write, finished once a row, applied on read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.numerics import (
    AnyInt,
    IntArray,
    bit_length,
    compilable,
    rescale,
    round_shift,
    saturate,
)

RSQRT = np.array(formats.rsqrt_table(), np.int64)


def finish(
    total: IntArray, squares: IntArray, *, inv_dim: int, inv_shift: int, epsilon: int,
    centred: bool = True,
) -> tuple[IntArray, IntArray, IntArray]:
    """Mean and reciprocal deviation of each row from Σx and Σx².

    Parameters
    ----------
    total, squares : int64 ``[rows]``
    inv_dim, inv_shift : ``1/D`` as in :func:`vitrify.arch.formats.inv_dim`
    epsilon : added to the variance, ``2*MEAN_FRAC`` fraction bits
    centred : without, the mean counts as 0 (RMSNorm)

    Returns
    -------
    mean : ``MEAN_FRAC`` fraction bits
    shift, mantissa : 1/std = ``mantissa / 2**RSQRT_FRAC / 2**shift`` per step / 2**MEAN_FRAC
    """
    mean = saturate(
        round_shift(total * inv_dim, inv_shift - formats.MEAN_FRAC),
        formats.RESIDUAL_BITS + formats.MEAN_FRAC,  # 1/D may be a trifle too large
    )
    if not centred:
        mean = 0 * mean
    # At most 43 bits by 16.
    power = round_shift(squares * inv_dim, inv_shift - 2 * formats.MEAN_FRAC)
    variance = np.maximum(power - mean * mean, 0) + epsilon
    variance = np.maximum(variance, 1)
    shift = (bit_length(variance) + 1) >> 1
    up = formats.RSQRT_INDEX_BITS - 2 * shift
    index = np.where(up >= 0, variance << np.maximum(up, 0), variance >> np.maximum(-up, 0))
    return mean, shift, RSQRT[index]


@compilable
def statistics(
    x: IntArray, *, inv_dim: int, inv_shift: int, epsilon: int, centred: bool = True
) -> tuple[IntArray, IntArray, IntArray]:
    """:func:`finish` of the sums of each row of ``x``, int16 ``[rows, D]``."""
    wide = x.astype(np.float64)  # which has all integers below 2**53
    total, squares = (
        values.astype(np.int64) for values in (wide.sum(axis=1), np.vecdot(wide, wide))
    )
    return finish(
        total, squares, inv_dim=inv_dim, inv_shift=inv_shift, epsilon=epsilon, centred=centred
    )


@compilable
def apply(
    x: IntArray, mean: IntArray, shift: IntArray, mantissa: IntArray, gain: AnyInt
) -> IntArray:
    """``round((x - mean) * rstd * gain)`` saturated to int8: int8 ``[rows, D]``.

    Parameters
    ----------
    x : int16 ``[rows, D]``
    mean, shift, mantissa : ``[rows]``, from :func:`finish`
    gain : ``[D]`` or ``[rows, D]``, unsigned 8 bits with ``GAIN_FRAC`` fraction bits
    """
    # No product has more than 22 bits: exact in float32.
    y = x.astype(np.float32)
    y *= 1 << formats.MEAN_FRAC
    y -= mean[:, None].astype(np.float32)
    rescale(y, shift[:, None] - formats.XHAT_FRAC)
    normal = formats.IntFormat(formats.XNORM_BITS)
    np.clip(y, normal.min, normal.max, out=y)
    y *= mantissa[:, None].astype(np.float32)
    rescale(y, formats.RSQRT_FRAC)
    y *= gain.astype(np.float32)
    rescale(y, formats.XHAT_FRAC + formats.GAIN_FRAC)
    return np.clip(y, formats.INT8.min, formats.INT8.max, out=y).astype(np.int8)


def product(low: IntArray, high: IntArray, shift: int, mantissa: int) -> npt.NDArray[np.int8]:
    """``low * high`` scaled, rounded and saturated to int8: int8 ``[rows, D]``.

    As :func:`apply` without a mean, of ``low`` with the sign of the product, and the gain
    ``|high|``: about ``low * high * mantissa / 2**(shift + RSQRT_FRAC)``.

    Parameters
    ----------
    low, high : int8 ``[rows, D]``
    shift, mantissa : as in :func:`finish`
    """
    x = np.where(high < 0, -low.astype(np.int64), low)
    rows = len(x)
    return apply(
        x, np.zeros(rows, np.int64), np.full(rows, shift), np.full(rows, mantissa),
        np.abs(high.astype(np.int64)),
    )
