"""How much token memory a program may take: speed first, smaller buffers where they must be."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass


class Separation(enum.IntEnum):
    """Which tensors are kept in banks of their own, from the fastest program to the smallest."""

    #: All that are read at the same time.
    ALL = 0
    #: Only what the epilogue and the row fetch read; the tile loader, which has time, waits.
    RESIDUAL = 1
    NONE = 2


@dataclass(frozen=True)
class Ahead:
    """Portions of weights that are loaded ahead of time, to places taken before op number ``step``.

    They are experts, ``slots`` of them at most at a time, or, with ``pieces``, pieces of layers of
    few rows, in so many equal parts of the memory
    (:func:`~vitrify.codegen.portions.room_words`).
    """

    slots: int = 0
    pieces: bool = False
    step: int = 0


@dataclass(frozen=True)
class Passing:
    """``tensors`` that are never there as a whole: what reads them is done in ``bands``.

    ``counts``: other numbers of bands, by the name of the first op of those done together.
    """

    tensors: frozenset[str] = frozenset()
    bands: int = 2
    counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class PlacementStrategy:
    """One way to place the tensors of a network.

    ``row_blocks``: at least so many blocks of rows pass through image, hidden layers and scores
    one after another; the weights of embedding and hidden layers cross DRAM once for each.
    ``score_blocks``: the same for the scores alone, which costs no DRAM traffic.
    ``whole_image``: the image is in memory as a whole all the same.
    """

    separation: Separation = Separation.ALL
    row_blocks: int = 1
    score_blocks: int = 1
    whole_image: bool = False
    #: So many ops at the beginning run image by image, the others for all images of the job.
    alone: int = 0
    ahead: Ahead = Ahead()
    #: Sums whose rows the next op normalises change their place with every addition: the epilogue
    #: reads old values where no rows are fetched.
    turns: bool = False
    #: What one op alone reads is made right before, even if other things wait for that.
    late: bool = False
    #: What frees more than it takes is made right behind what it needs.
    early: bool = False
    #: Tensors at the far end of the memory, so that between others there is room in one piece.
    far: frozenset[str] = frozenset()
    passing: Passing = Passing()

    @property
    def image_blocks(self) -> int:
        """Blocks of rows in which an image passes."""
        return 1 if self.whole_image else self.row_blocks


#: Fewer experts ahead gain nothing: each is waited for by the one behind it.
_LEAST_AHEAD = 3


def strategies(preloads: int = 0, images: int = 1) -> Iterator[PlacementStrategy]:
    """From the fastest to the smallest; with so many experts ahead at most.

    Where several images do not fit, the first ops run image by image: one or more.
    """
    for count in range(preloads, _LEAST_AHEAD - 1, -1):
        yield PlacementStrategy(ahead=Ahead(count))
    for rows in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        yield PlacementStrategy(Separation.ALL, rows, rows)
        for separation in (Separation.RESIDUAL, Separation.NONE):
            for scores in (rows, 2 * rows, 4 * rows):
                yield PlacementStrategy(separation, rows, scores)
        if images > 1:
            yield PlacementStrategy(Separation.ALL, rows, rows, alone=1)
    # Another order of the ops only where no number of blocks helped: what is made early waits for
    # what it needs, and what is made late for what it could run beside.  Each way is a lowering of
    # the whole network, so these are few.
    for rows in (1, 4, 16):
        yield PlacementStrategy(Separation.NONE, rows, rows, early=True)
    for rows in (4, 8, 16):
        yield PlacementStrategy(Separation.NONE, rows, rows, late=True)
