"""Trellis-coded weights: 4 bits each in DRAM, as if they were finer and reached further.

A code chooses one of 16 levels, and which 16 these are depends on the lowest bits of the two codes
before it: four states, each with a column of :data:`LEVELS`.  Near zero all states have the same
levels; of the large ones every state has others, so that whoever chooses the codes (the Viterbi
algorithm: :mod:`vitrify.quant.trellis`) reaches more of them than 16.  Of normally distributed
weights the rounding error is 0.0067 of their energy at best, with 16 equal steps 0.0120, with the
16 best levels 0.0096.  (Trellis-coded quantisation: Marcellin and Fischer 1990.)

A chain of codes goes along the columns of a c tile, for each of the K bytes of a word by itself,
and begins with every tile.  A decoder needs the codes of a word and two bits of the word before:
:mod:`vitrify.rtl.units.coded_words`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: ``[states, 16]`` by state and code, ascending.  Found for normally distributed weights of a
#: standard deviation of 4.3 by Lloyd's algorithm on chains of 64, rounded; every state has a zero,
#: for columns that are padding.
LEVELS = np.array([
    [-13, -8, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 9],
    [-10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 14],
    [-9, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 12],
    [-11, -8, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 10],
], np.int8)
#: Two bits: those of the code before the last one, and of the last one.
STATES = len(LEVELS)
#: Bits of a level, a signed integer.
LEVEL_BITS = 5
#: Largest and smallest level of any state.
LOW, HIGH = int(LEVELS.min()), int(LEVELS.max())

_CODES = np.full((STATES, HIGH - LOW + 1), -1, np.int8)
for _state in range(STATES):
    _CODES[_state, LEVELS[_state].astype(int) - LOW] = np.arange(16)


def following(state: Any, code: Any) -> Any:
    """The state behind a code, of integers or arrays."""
    return (state << 1 | code & 1) & STATES - 1


def decode(codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int8]:
    """Weights of ``codes [..., columns, K]``, whose low four bits count, tile by tile."""
    found = np.empty(codes.shape, np.int8)
    state = np.zeros(codes[..., 0, :].shape, np.int8)
    for column in range(codes.shape[-2]):
        code = codes[..., column, :] & 0xF
        found[..., column, :] = LEVELS[state, code]
        state = following(state, code)
    return found


def encode(weights: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int8] | None:
    """Codes of ``weights [..., columns, K]``, tile by tile; ``None`` if some have none."""
    if not spans(weights):
        return None
    found = np.empty(weights.shape, np.int8)
    state = np.zeros(weights[..., 0, :].shape, np.int8)
    for column in range(weights.shape[-2]):
        code = _CODES[state, weights[..., column, :].astype(np.int16) - LOW]
        if (code < 0).any():
            return None
        found[..., column, :] = code
        state = following(state, code)
    return found


def spans(weights: npt.NDArray[np.integer[Any]]) -> bool:
    """Whether all are between the smallest and the largest level, as weights with codes are."""
    return bool(weights.min() >= LOW and weights.max() <= HIGH)
