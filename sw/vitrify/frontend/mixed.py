"""What the tracer knows about tensors that a router has to do with.

Everything that depends on the logits of a gate alone -- softmax, top-k, masks, one-hot tables,
lists of rows -- is *executed* on a few random sets of logits, :data:`DRAWS` of them.  What comes
out at the end, the weight of each expert for each token, is compared with the known ways to weigh
experts, so that every spelling of a router is recognised alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from .values import Traced, Unfit, View

#: Sets of random logits that a router is executed on.
DRAWS = 3
SEED = 31
#: Standard deviation of the logits; the weights of a softmax are then of very different size.
SPREAD = 2.0

Move = Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class Gate:
    """A source of logits.

    Parameters
    ----------
    tensor:
        Canonical, [N, T, E] or [N, E].
    draws:
        Random logits [rows, E], one array a draw; rows are those of ``tensor``.
    """

    tensor: ir.Value
    draws: list[np.ndarray]

    @staticmethod
    def of(tensor: ir.Value, rows: int, width: int, number: int) -> Gate:
        """The gate behind ``tensor``; ``number`` tells the gates of a model apart."""
        rng = np.random.default_rng([SEED, number])
        logits = SPREAD * rng.standard_normal((DRAWS * rows, width), np.float32)
        # every expert has its turn to be the first choice
        turn = np.arange(DRAWS * rows)
        logits[turn, turn % width] = logits.max(axis=1) + 1.0
        return Gate(tensor, np.split(logits, DRAWS))


@dataclass(eq=False)
class Gating:
    """A function of the logits of gates: its value in every draw.

    Parameters
    ----------
    node:
        Where it left the activations: the softmax or the choice of the largest.
    dynamic:
        Its shape may depend on the logits.
    """

    arrays: list[np.ndarray]
    gates: tuple[Gate, ...]
    node: ir.Node
    dynamic: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor, where it is one for all logits."""
        if self.dynamic:
            raise Unfit("its shape depends on the image")
        return self.arrays[0].shape

    def moved(self, move: Move) -> Gating:
        """The value after a data movement."""
        return Gating([move(array) for array in self.arrays], self.gates, self.node, self.dynamic)


@dataclass(eq=False)
class Term:
    """``weight * view``: in every draw one number for each element; ``None`` stands for ones."""

    view: View
    weight: list[np.ndarray] | None = None

    def weights(self) -> list[np.ndarray]:
        """The weights, ones written out."""
        if self.weight is None:
            return [np.ones(self.view.shape, np.float32)] * DRAWS
        return self.weight


@dataclass(eq=False)
class Mixture:
    """A sum of terms that have the same shape.

    Parameters
    ----------
    node:
        Of a router that weighs terms, to be named when they are no mixture of experts.
    parent:
        The sum that this one is a part of, and the movement that chose the part.
    """

    terms: list[Term]
    gates: tuple[Gate, ...]
    node: ir.Node
    parent: tuple[Mixture, Move] | None = None
    view: View | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.terms[0].view.shape

    def moved(self, move: Move) -> Mixture:
        """The sum after a data movement."""
        count = int(np.prod(self.shape))
        kept = len(np.unique(move(np.arange(count).reshape(self.shape))))
        terms = [
            Term(
                term.view.moved(move),
                None if term.weight is None else [move(array) for array in term.weight],
            )
            for term in self.terms
        ]
        return Mixture(terms, self.gates, self.node, None if kept == count else (self, move))


@dataclass(eq=False)
class Stack:
    """Tensors of one shape side by side along an axis of their own."""

    parts: Sequence[Traced]
    axis: int
    node: ir.Node

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        inner = self.parts[0].shape
        return (*inner[: self.axis], len(self.parts), *inner[self.axis :])


@dataclass(eq=False)
class Place:
    """A part of a :class:`Picked`: in every draw, which elements of a tensor, and their weight."""

    source: Traced
    index: list[np.ndarray]
    weight: list[np.ndarray] | None = None


@dataclass(eq=False)
class Picked:
    """Elements picked by a router, such as the tokens that go to one expert.

    Its shape depends on the image: the number of tokens.  It is a sum of parts that pick at the
    same places; more than one of them when results of several experts were added up before.
    """

    places: list[Place]
    gates: tuple[Gate, ...]
    node: ir.Node

    @property
    def shape(self) -> tuple[int, ...]:
        """It has none before the image is known."""
        raise Unfit("its shape depends on the image")

    def moved(self, moves: Callable[[int, np.ndarray], np.ndarray]) -> Picked:
        """After a data movement, which gets the number of the draw as well."""
        places = [
            Place(
                place.source,
                [moves(draw, index) for draw, index in enumerate(place.index)],
                None
                if place.weight is None
                else [moves(draw, array) for draw, array in enumerate(place.weight)],
            )
            for place in self.places
        ]
        return Picked(places, self.gates, self.node)


def joined(*values: Gating | Mixture | Picked) -> tuple[Gate, ...]:
    """All the gates of some values, each once."""
    return tuple(dict.fromkeys(gate for value in values for gate in value.gates))
