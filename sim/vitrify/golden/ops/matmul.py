"""The matrix unit: exact integer dot products, with the speed of floating-point BLAS."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.golden.numerics import IntArray

#: A chunk of this depth sums below 2**24, where float32 is exact: 512 * 127 * 255 < 2**24.
_EXACT_DEPTH = 512


def matmul(operand: IntArray, stationary: IntArray) -> IntArray:
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
    total = np.zeros((operand.shape[0], stationary.shape[0]), np.int32)
    for start in range(0, depth, _EXACT_DEPTH):
        stop = start + _EXACT_DEPTH
        part = operand[:, start:stop].astype(np.float32) @ stationary[:, start:stop].T.astype(
            np.float32
        )
        total += part.astype(np.int32)
    return total
