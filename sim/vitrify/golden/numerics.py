"""Rounding and saturation on integer arrays: :mod:`vitrify.arch.formats`, vectorised."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from vitrify.arch.formats import IntFormat

X = TypeVar("X", bound=npt.NDArray[Any])
P = ParamSpec("P")
R = TypeVar("R")

IntArray = npt.NDArray[np.signedinteger[Any]]
AnyInt = npt.NDArray[np.integer[Any]]
AnyNumber = npt.NDArray[np.number[Any]]

#: Elements behind which compiled kernels have paid for the half second that loading them takes.
_WORTH_LOADING = 1 << 25
_done = 0


@functools.cache
def compiled() -> ModuleType | None:
    """The kernels that Numba compiles; ``None`` without it, or with ``NUMBA_DISABLE_JIT``."""
    # Numba reads it, too, but needs 60 MB for that.
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return None
    try:
        from . import compiled
    # Numba is not installed, or too old for this NumPy; or it may write its cache nowhere.
    except (ImportError, RuntimeError):
        return None
    return compiled


def compilable(kernel: Callable[Concatenate[X, P], R]) -> Callable[Concatenate[X, P], R]:
    """Run the function of the same name in ``compiled`` instead, once a process has much to do."""
    @functools.wraps(kernel)
    def run(x: X, *args: P.args, **options: P.kwargs) -> R:
        global _done
        _done += x.size
        fast = compiled() if _done > _WORTH_LOADING else None
        chosen = kernel if fast is None else getattr(fast, kernel.__name__)
        return chosen(x, *args, **options)

    return run


def round_shift(x: IntArray, shift: int | IntArray) -> IntArray:
    """``x / 2**shift`` rounded half up, elementwise; ``shift >= 0`` may be an array."""
    s = np.asarray(shift, dtype=x.dtype)
    half = np.where(s > 0, np.left_shift(np.asarray(1, x.dtype), np.maximum(s - 1, 0)), 0)
    return (x + half.astype(x.dtype)) >> s


def rescale(x: npt.NDArray[np.floating[Any]], shift: int | IntArray) -> None:
    """``x / 2**shift`` rounded half up, in place, of integers held exactly by a float array.

    :func:`round_shift` several times as fast, negative shifts included: only the exponent of
    ``x`` changes, and the sum with one half is exact while ``x`` has fewer bits than the
    mantissa less one (float32: 23, float64: 52).
    """
    x *= np.ldexp(np.ones((), x.dtype), -np.asarray(shift, np.int32))
    x += 0.5
    np.floor(x, out=x)


def saturate(x: IntArray, bits: int) -> IntArray:
    """Clip to a signed ``bits``-bit integer (same dtype)."""
    fmt = IntFormat(bits)
    return np.clip(x, fmt.min, fmt.max)


def saturate_sym8(x: IntArray) -> IntArray:
    """Clip to -127 … 127 (same dtype)."""
    return np.clip(x, -127, 127)


def bit_length(x: IntArray) -> IntArray:
    """Bits of each non-negative element; 0 for 0."""
    # frexp is exact: values stay far below 2**53.
    return np.frexp(x.astype(np.float64))[1].astype(np.int64)
