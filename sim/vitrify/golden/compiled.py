"""Kernels of :mod:`vitrify.golden.ops` as loops that Numba compiles: the same integers, faster.

Optional (extra ``fast``); :func:`vitrify.golden.numerics.compiled` chooses.  The functions
without an underscore take what the NumPy functions of their names take, which define them; a test
compares the two.  What is compiled gets every constant as an argument: the cache of Numba sees
changes of this file only.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from vitrify.arch import formats

from .numerics import AnyInt, AnyNumber, IntArray
from .ops import layernorm, softmax

_EMPTY = {dtype: np.empty((0, 0), dtype) for dtype in (np.int8, np.int16)}
_NO_TABLE = np.empty(0, np.int8)


@functools.cache
def _tell(cache: Path) -> None:
    logging.getLogger(__name__).warning(
        "compiling golden's kernels, which happens once; they are kept in %s", cache
    )


def jit(*signatures: str) -> Callable[[Any], Any]:
    """Compile for these types, once for a processor and a version of the function's file."""
    def with_types(function: Callable[..., None]) -> Any:
        kernel = numba.njit(cache=True, nogil=True)(function)
        cache = Path(str(kernel.stats.cache_path))
        if not any(cache.glob(f"{Path(function.__code__.co_filename).stem}.{function.__name__}-*")):
            _tell(cache)
        for types in signatures:
            kernel.compile(types)
        return kernel

    return with_types


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
    """As :func:`vitrify.golden.ops.requantise.finish`."""
    dtype = np.int8 if narrow else np.int16
    wide = formats.INT16
    low, high = (-127.0, 127.0) if narrow else (float(wide.min), float(wide.max))
    port = formats.IntFormat(requant_bits)
    out = np.empty(acc.shape, dtype)
    _finish(
        np.ascontiguousarray(acc, np.float32 if acc.dtype == np.float32 else np.int32),
        np.ldexp(1.0, -np.asarray(pre_shift, np.int32)).reshape(-1),
        np.asarray(bias, np.float64).reshape(-1),
        np.array(multiplier * 0.5**post_shift, np.float64, ndmin=2, copy=None),
        float(port.min), float(port.max),
        _EMPTY[dtype] if old is None else np.ascontiguousarray(old, dtype), largest,
        _NO_TABLE if table is None else table, low, high,
        # int16 is saturated before the sum, too.
        -np.inf if narrow else low, np.inf if narrow else high, out,
    )
    return out


@jit(*(
    f"void({acc}[:,::1], f8[::1], f8[::1], f8[:,::1], f8, f8, {out}[:,::1], b1, i1[::1], f8, f8,"
    f" f8, f8, {out}[:,::1])"
    for acc in ("f4", "i4") for out in ("i1", "i2")
))
def _finish(acc, down, bias, factor, least, most, old, largest, table, low, high, sum_low, sum_high,
            out):
    """``down [1 or rows]``, ``bias [1 or columns]``, ``factor [1 or rows, 1 or columns]``."""
    columns = acc.shape[1]
    offset, scale, value = np.empty(columns), np.empty(columns), np.empty(columns)
    for r in range(len(acc)):
        shift = down[r % len(down)]
        if r == 0 or len(down) > 1:
            offset[:] = bias * shift + 0.5
        if r == 0 or len(factor) > 1:
            scale[:] = factor[r % len(factor)]
        for c in range(columns):
            v = np.floor(acc[r, c] * shift + offset[c])
            value[c] = np.floor(min(max(v, least), most) * scale[c] + 0.5)
        if len(old) and not largest:
            for c in range(columns):
                value[c] = min(max(value[c], sum_low), sum_high) + old[r, c]
        for c in range(columns):
            out[r, c] = min(max(value[c], low), high)
        if len(old) and largest:
            for c in range(columns):
                out[r, c] = max(out[r, c], old[r, c])
        if len(table):
            for c in range(columns):
                out[r, c] = table[out[r, c] & 255]


def apply(
    x: IntArray, mean: IntArray, shift: IntArray, mantissa: IntArray, gain: AnyInt
) -> IntArray:
    """As :func:`vitrify.golden.ops.layernorm.apply`."""
    out = np.empty(x.shape, np.int8)
    normal = formats.IntFormat(formats.XNORM_BITS)
    # All shifts go into the factors, which stay exact.
    half, low, high, least, most = (
        np.float32(v) for v in (0.5, normal.min, normal.max, formats.INT8.min, formats.INT8.max)
    )
    _apply(
        np.ascontiguousarray(x, np.int16),
        np.ldexp(mean.astype(np.float32), -formats.MEAN_FRAC),
        np.ldexp(np.float32(1), (formats.MEAN_FRAC + formats.XHAT_FRAC - shift).astype(np.int32)),
        np.ldexp(mantissa.astype(np.float32), -formats.RSQRT_FRAC),
        np.ldexp(np.atleast_2d(gain).astype(np.float32), -formats.XHAT_FRAC - formats.GAIN_FRAC),
        half, low, high, least, most, out,
    )
    return out


@jit("void(i2[:,::1], f4[::1], f4[::1], f4[::1], f4[:,::1], f4, f4, f4, f4, f4, i1[:,::1])")
def _apply(x, mean, down, mantissa, gain, half, low, high, least, most, out):
    for r in range(len(x)):
        m, d, f, own = mean[r], down[r], mantissa[r], gain[r % len(gain)]
        for c in range(x.shape[1]):
            y = np.floor((np.float32(x[r, c]) - m) * d + half)
            y = np.floor(min(max(y, low), high) * f + half)
            y = np.floor(y * own[c] + half)
            out[r, c] = min(max(y, least), most)


def statistics(
    x: IntArray, *, inv_dim: int, inv_shift: int, epsilon: int, centred: bool = True
) -> IntArray:
    """As :func:`vitrify.golden.ops.layernorm.statistics`: ``[3, rows]``."""
    out = np.empty((3, len(x)), np.int64)
    mean = formats.IntFormat(formats.RESIDUAL_BITS + formats.MEAN_FRAC)
    _statistics(
        np.ascontiguousarray(x, np.int16), inv_dim, inv_shift - formats.MEAN_FRAC,
        inv_shift - 2 * formats.MEAN_FRAC, *((mean.min, mean.max) if centred else (0, 0)),
        epsilon, formats.RSQRT_INDEX_BITS, layernorm.RSQRT, out,
    )
    return out


@jit("void(i2[:,::1], i8, i8, i8, i8, i8, i8, i8, i8[::1], i8[:,::1])")
def _statistics(x, inv_dim, mean_shift, power_shift, low, high, epsilon, index_bits, rsqrt, out):
    for r in range(len(x)):
        total = squares = 0
        for c in range(x.shape[1]):
            value = np.int64(x[r, c])
            total += value
            squares += value * value
        mean = (total * inv_dim + ((1 << mean_shift) >> 1)) >> mean_shift
        mean = min(max(mean, low), high)
        power = (squares * inv_dim + ((1 << power_shift) >> 1)) >> power_shift
        variance = max(max(power - mean * mean, 0) + epsilon, 1)
        bits = 0
        while variance >> bits:
            bits += 1
        shift = (bits + 1) >> 1
        up = index_bits - 2 * shift
        out[0, r], out[1, r] = mean, shift
        out[2, r] = rsqrt[variance << up if up >= 0 else variance >> -up]


def exp2(logits: IntArray, maximum: IntArray) -> npt.NDArray[np.uint8]:
    """As :func:`vitrify.golden.ops.softmax.exp2`."""
    out = np.empty(logits.shape, np.uint8)
    _exp2(np.ascontiguousarray(logits, np.int8), softmax.rows_of(maximum), softmax.WEIGHTS, out)
    return out


@jit("void(i1[:,::1], i8[::1], u1[:,::1], u1[:,::1])")
def _exp2(logits, rows, weights, out):
    for r in range(len(logits)):
        own = weights[rows[r]]
        for c in range(logits.shape[1]):
            out[r, c] = own[logits[r, c] & 255]
