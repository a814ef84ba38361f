"""Rounding to trellis-coded weights: of all chains of codes the one with the least error.

The levels of a column depend on the codes of the two columns before it in its c tile
(:mod:`vitrify.arch.trellis`), so that columns are rounded together, for each input by itself: the
best way through four states (Viterbi 1967).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import trellis
from vitrify.arch.access import places
from vitrify.arch.config import ArchConfig
from vitrify.golden import numerics

from .rounding import GRIDS, Float, Grid
from .wanted import NARROW

Chains = Callable[[Float, npt.NDArray[np.bool_]], Float]

#: Levels and half steps between them, from the one below the lowest to the one above the highest.
_HALVES = np.arange(2 * trellis.LOW - 2, 2 * trellis.HIGH + 3)


def _closest() -> npt.NDArray[np.int8]:
    """The closest level by state, lowest bit of its code, and twice the value, rounded down."""
    found = np.empty((trellis.STATES, 2, len(_HALVES)), np.int8)
    for state, row in enumerate(trellis.LEVELS):
        for bit in (0, 1):
            some = row[bit::2].astype(float)
            distances = np.abs(some[:, None] - (_HALVES / 2 + 0.25))
            found[state, bit] = some[distances.argmin(axis=0)]
    return found


#: ``[states, 2, halves]``.  Between levels, integers, what is closer changes at a half step.
_CLOSEST = _closest()

#: Whether the code of a zero ends so: ``[states, 2]``.
_ZEROS = np.array([[0 in row[bit::2] for bit in (0, 1)] for row in trellis.LEVELS])


@dataclass(frozen=True)
class TrellisGrid(Grid):
    """Levels that chains of codes reach; :meth:`for_layer` says where a layer's columns lie.

    ``columns``: place of each row of weights among the columns of the core, of which a c tile has
    ``width``.
    """

    width: int = 0
    columns: npt.NDArray[np.integer[Any]] = field(default_factory=lambda: np.zeros(0, np.intp))

    def for_layer(self, channels: int, groups: int, arch: ArchConfig) -> TrellisGrid:
        """In the places of a tensor of so many channels."""
        return replace(self, width=arch.width, columns=places(channels, groups, arch.depth))

    def nearest(self, values: Float) -> Float:
        """Of one or several matrices ``[columns, ...]``, one behind the other."""
        assert np.isfinite(values).all(), "a loop that is compiled looks up whatever it is given"
        each = values.reshape(-1, len(self.columns), math.prod(values.shape[1:]))
        tiles = int(self.columns[-1]) // self.width + 1
        # Column by column of a tile: [matrices, tiles, C, inputs].
        wanted = np.zeros((len(each), tiles * self.width, each.shape[2]))
        wanted[:, self.columns] = each
        wanted = wanted.reshape(len(each), tiles, self.width, -1)
        padding = np.ones(tiles * self.width, np.bool_)
        padding[self.columns] = False
        empty = np.broadcast_to(padding.reshape(1, tiles, self.width, 1), wanted.shape)
        chains = np.moveaxis(wanted, 2, 0)
        found = fastest()(
            chains.reshape(self.width, -1), np.moveaxis(empty, 2, 0).reshape(self.width, -1))
        every = np.moveaxis(found.reshape(chains.shape), 0, 2).reshape(len(each), -1, each.shape[2])
        return every[:, self.columns].reshape(values.shape)


#: For weights of four bits on a core that has the codes.  Clips begin above one: the highest level
#: is for three standard deviations, and of a few dozen weights none may be as large.
TRELLIS = TrellisGrid(
    trellis.LOW, trellis.HIGH, tuple(np.geomspace(1.8, 0.4, 12)), most=GRIDS[NARROW].most,
    sweeps=2, damping=GRIDS[NARROW].damping,
)


@functools.cache
def fastest() -> Chains:
    """:func:`closest_chains`, compiled where golden's kernels are."""
    if numerics.compiled() is None:
        return closest_chains
    from .compiled import closest_chains as fast

    return lambda wanted, padding: fast(wanted, padding, _CLOSEST, _ZEROS, float(_HALVES[0]))


def closest_chains(wanted: Float, padding: npt.NDArray[np.bool_]) -> Float:
    """The levels, of chains of codes, with the least square error.

    Parameters
    ----------
    wanted : ``[columns, chains]``
    padding : the same; columns that have to be zero
    """
    columns, chains = wanted.shape
    index = np.clip(np.floor(2 * wanted) - _HALVES[0], 0, len(_HALVES) - 1).astype(np.intp)
    levels = np.where(padding[:, None, None], 0, _CLOSEST[:, :, index].transpose(2, 0, 1, 3))
    errors = np.square(wanted[:, None, None] - levels)
    # A zero's code has one lowest bit: with the other there is none.
    errors[np.broadcast_to(padding[:, None, None], errors.shape) & ~_ZEROS[:, :, None]] = np.inf
    cost = np.full((trellis.STATES, chains), np.inf)
    cost[0] = 0
    # A state has two before it, which differ in the upper of their bits: which one it came from.
    came = np.empty((columns, trellis.STATES, chains), np.bool_)
    for column in range(columns):
        both = (cost[:, None] + errors[column]).reshape(2, trellis.STATES, chains)
        came[column] = both[1] < both[0]
        cost = np.minimum(both[0], both[1])
    state, every = cost.argmin(axis=0), np.arange(chains)
    found = np.empty_like(wanted)
    for column in range(columns - 1, -1, -1):
        bit, before = state & 1, state >> 1 | came[column, state, every].astype(np.intp) << 1
        found[column] = levels[column, before, bit, every]
        state = before
    return found
