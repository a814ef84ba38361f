"""The epilogue's arithmetic: bias, shift, one multiplier, shift, saturation."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.golden.numerics import IntArray, saturate, saturate_sym8


def scale(
    acc: IntArray,
    *,
    bias: IntArray | int,
    pre_shift: int | IntArray,
    multiplier: IntArray | int,
    post_shift: int,
    requant_bits: int,
) -> IntArray:
    """``sat(round((acc + bias) / 2**pre)) * multiplier / 2**post``, rounded.

    Parameters
    ----------
    acc : int ``[rows, columns]``, ``ACC_BITS`` signed
    bias : int ``[columns]`` or 0
    pre_shift : one value, or ``[rows, 1]``
    multiplier : ``[columns]``, ``[rows, 1]`` or one value; unsigned 16 bits
    post_shift : one of ``POST_SHIFTS``
    requant_bits : signed width of the multiplier's data port

    Returns
    -------
    int32 ``[rows, columns]``, not yet saturated
    """
    # As round_shift, twice, on integers that a float64 holds exactly: a power of two changes the
    # exponent only, so it goes into bias and multiplier, which are smaller than the sums.
    # 27 bits by 16 are exact, and below 2**31 behind the least of the post shifts.
    down = np.ldexp(1.0, -np.asarray(pre_shift, np.int32))
    value = acc * down
    value += bias * down + 0.5
    np.floor(value, out=value)
    port = formats.IntFormat(requant_bits)
    np.clip(value, port.min, port.max, out=value)
    value *= multiplier * np.ldexp(1.0, -post_shift)
    value += 0.5
    return np.floor(value, out=value).astype(np.int32)


def to_int8(
    value: IntArray, table: IntArray | None = None, old: IntArray | None = None, *,
    largest: bool = False,
) -> IntArray:
    """Saturate to -127 … 127; through ``table`` (int8, indexed by the byte's bits) if given.

    ``old`` (int8) is added before the saturation, or is the least that comes out if ``largest``.
    """
    if old is not None and not largest:
        value = value + old.astype(np.int64)
    byte = saturate_sym8(value)
    if old is not None and largest:
        byte = np.maximum(byte, old)
    return (byte if table is None else table[byte & 0xFF]).astype(np.int8)


def to_int16(
    value: IntArray, old: IntArray | None = None, *, largest: bool = False
) -> IntArray:
    """Saturate to int16; add to ``old`` with saturation, or take the ``largest`` of both."""
    result = saturate(value, formats.RESIDUAL_BITS)
    if old is not None:
        result = np.maximum(result, old) if largest else saturate(
            result + old, formats.RESIDUAL_BITS)
    return result.astype(np.int16)
