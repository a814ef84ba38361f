"""The matrix unit: exact integer dot products, at the speed of floating-point BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.golden.numerics import AnyInt, IntArray

#: float32 has all integers up to this.
_EXACT = 1 << 24


def product(operand: AnyInt, stationary: AnyInt) -> npt.NDArray[Any]:
    """:func:`matmul`, as int32 or, where that is less work, as float32 with integers in it."""
    depth = operand.shape[1]
    if depth > formats.MAX_DEPTH:
        raise ValueError(f"inner dimension {depth} exceeds {formats.MAX_DEPTH}")
    # Sums of chunks of this depth are exact: 1024 bytes that are signed, 514 that may not be.
    step = _EXACT // (128 * (128 if operand.dtype == np.int8 else 255))
    if depth <= step:
        return operand.astype(np.float32) @ stationary.astype(np.float32).T
    total = np.zeros((len(operand), len(stationary)), np.int32)
    for at in range(0, depth, step):
        part = slice(at, at + step)
        total += product(operand[:, part], stationary[:, part]).astype(np.int32)
    return total


def matmul(operand: AnyInt, stationary: AnyInt) -> IntArray:
    """``operand @ stationary.T``.

    Parameters
    ----------
    operand : int ``[rows, depth]``, -128 … 255
    stationary : int ``[columns, depth]``, -127 … 127

    Returns
    -------
    int32 ``[rows, columns]``; never overflows ``formats.ACC_BITS`` for legal depths.
    """
    return product(operand, stationary).astype(np.int32, copy=False)
