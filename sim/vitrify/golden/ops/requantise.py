"""The epilogue's arithmetic: bias, shift, one multiplier, shift, saturation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.numerics import (
    AnyInt,
    AnyNumber,
    IntArray,
    compilable,
    saturate,
    saturate_sym8,
)


def scale(
    acc: AnyNumber,
    *,
    bias: IntArray | int,
    pre_shift: int | IntArray,
    multiplier: AnyInt | int,
    post_shift: int,
    requant_bits: int,
) -> IntArray:
    """``sat(round((acc + bias) / 2**pre)) * multiplier / 2**post``, rounded.

    Parameters
    ----------
    acc : int ``[rows, columns]``, ``ACC_BITS`` signed, maybe held by a float
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
    byte = byte.astype(np.int8)
    return byte if table is None else table.take(byte.view(np.uint8))


def to_int16(
    value: IntArray, old: IntArray | None = None, *, largest: bool = False
) -> IntArray:
    """Saturate to int16; add to ``old`` with saturation, or take the ``largest`` of both."""
    result = saturate(value, formats.RESIDUAL_BITS)
    if old is not None:
        result = np.maximum(result, old) if largest else saturate(
            result + old, formats.RESIDUAL_BITS)
    return result.astype(np.int16)


@compilable
def finish(
    acc: AnyNumber,
    *,
    bias: IntArray | int,
    pre_shift: int | IntArray,
    multiplier: AnyInt | int,
    post_shift: int,
    requant_bits: int,
    narrow: bool,
    table: npt.NDArray[np.int8] | None = None,
    old: IntArray | None = None,
    largest: bool = False,
) -> npt.NDArray[Any]:
    """:func:`scale`, and :func:`to_int8` of that if ``narrow``, else :func:`to_int16`.

    ``old`` has the type of the result.
    """
    value = scale(
        acc, bias=bias, pre_shift=pre_shift, multiplier=multiplier, post_shift=post_shift,
        requant_bits=requant_bits,
    )
    if narrow:
        return to_int8(value, table, old, largest=largest)
    return to_int16(value, old, largest=largest)
