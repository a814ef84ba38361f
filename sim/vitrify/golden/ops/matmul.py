"""The matrix unit: exact integer dot products, at the speed of floating-point BLAS."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.golden.numerics import AnyInt, IntArray

#: A chunk of this depth sums below 2**24, where float32 is exact: 512 * 127 * 255 < 2**24.
_EXACT_DEPTH = 512


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
    depth = operand.shape[1]
    if depth > formats.MAX_DEPTH:
        raise ValueError(f"inner dimension {depth} exceeds {formats.MAX_DEPTH}")
    chunks = range(0, depth, _EXACT_DEPTH)
    parts = (
        operand[:, at : at + _EXACT_DEPTH].astype(np.float32)
        @ stationary[:, at : at + _EXACT_DEPTH].T.astype(np.float32)
        for at in chunks
    )
    total = next(parts).astype(np.int32)
    for part in parts:
        total += part.astype(np.int32)
    return total
