"""How far results are from what is right."""

from __future__ import annotations

import numpy as np


def decibel(exact: np.ndarray, found: np.ndarray, known: np.ndarray | float = 0.0) -> float:
    """Signal-to-noise ratio; the signal is what differs from ``known``.

    Infinite where nothing is wrong, and minus infinite where the shape is.
    """
    if exact.shape != found.shape:
        return float("-inf")
    signal = float(np.sum((exact.astype(float) - known) ** 2))
    noise = float(np.sum((found.astype(float) - exact) ** 2))
    return float(10 * np.log10(signal / noise)) if noise else float("inf")
