"""Weights of experts that go to the token memory ahead of time, while others are multiplied.

Which experts an image asks for is known only behind the router, when the core has nothing else to
do than to wait for their weights.  Those that are likely to be asked for are loaded before, as soon
as there is room, and taken from there two columns a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vitrify.quant.graph import QExperts, QTensor

from .builder import Stored
from .lowering import Lowering
from .pack import Bytes, tile_words
from .placement import Placed

#: Share of the images (see :func:`~vitrify.quant.experts.asked`) from which on an expert is loaded
#: before anybody has asked for it.
LIKELY = 0.5
#: Experts that are ahead at most.  The bus has time for about five in the blocks between two
#: mixtures; beyond seven their banks are those that the other engines want.
MOST_AHEAD = 7


@dataclass
class _Slot:
    """A place for the weights of an expert; ``used`` is the last MATMUL that reads it."""

    place: Placed
    used: int | None = None


class Preloads:
    """Slots in the token memory, filled in turn, in the order in which experts run.

    Parameters
    ----------
    state : places the slots and takes the LOADs
    slots : as many experts are ahead; fewer if there are not so many
    """

    def __init__(self, state: Lowering, slots: int) -> None:
        self._state = state
        #: Experts in the order in which they run, and the place of each in it.
        self._experts = _likely(state) if slots else []
        self._turn = {(op.name, number): i for i, (op, number) in enumerate(self._experts)}
        self._slots: list[_Slot] = []
        self._loads: list[int] = []
        self._done = 0
        words = max((self._words(*expert) for expert in self._experts), default=0)
        # Side by side in few banks: the others are for what is read meanwhile.
        before = list(state.placed)
        for i in range(min(slots, len(self._experts))):
            # Rows of K bytes, low and high: the words of two columns.
            tensor = QTensor(f"weights[{i}]", 1, words * state.arch.depth, 16, 1.0)
            self._slots.append(_Slot(state.place(tensor, apart=before)))
            state.release_later(tensor.name, len(state.graph.ops))

    def __len__(self) -> int:
        """Experts that are ahead at most."""
        return len(self._slots)

    def __contains__(self, expert: tuple[str, int]) -> bool:
        return expert in self._turn

    def fill(self) -> None:
        """LOAD the next expert, if a slot is free for it."""
        number = len(self._loads)
        if number - self._done == len(self._slots) or number == len(self._experts):
            return
        slot = self._slots[number % len(self._slots)]
        weights = self._weights(*self._experts[number])
        self._loads.append(self._state.builder.preload(slot.place, weights, slot.used))

    def take(self, expert: tuple[str, int]) -> tuple[Stored, Stored]:
        """Where the weights of both layers are of the expert whose turn it is."""
        index = self._turn[expert]
        assert index == self._done
        while len(self._loads) <= index:
            self.fill()
        address = self._slots[index % len(self._slots)].place.address
        first = Stored(address, self._loads[index])
        return first, replace(first, address=address + self._pairs(*self._experts[index], 0))

    def release(self) -> None:
        """The expert that was taken last runs no more: its slot is free."""
        self._slots[self._done % len(self._slots)].used = len(self._state.builder.matmuls) - 1
        self._done += 1

    def _weights(self, op: QExperts, number: int) -> Bytes:
        """Tiles of both layers, one behind the other."""
        state, (first, second) = self._state, op.experts[number]
        spreads = [state.spread_of(name) for name in (op.x, first.out, op.out)]
        return np.concatenate([
            tile_words(state.arch, out.scatter(x.scatter(layer.weight, axis=1))).reshape(-1)
            for layer, x, out in zip((first, second), spreads, spreads[1:], strict=False)
        ])

    def _pairs(self, op: QExperts, number: int, layer: int) -> int:
        """Pair words of one layer's tiles."""
        state, arch = self._state, self._state.arch
        first, _ = op.experts[number]
        names = (op.x, first.out, op.out)[layer : layer + 2]
        depth, columns = (state.spread_of(name).physical for name in names)
        return -(-depth // arch.depth) * -(-columns // arch.width) * arch.tile_pairs

    def _words(self, op: QExperts, number: int) -> int:
        return self._pairs(op, number, 0) + self._pairs(op, number, 1)


def _likely(state: Lowering) -> list[tuple[QExperts, int]]:
    return [
        (op, number)
        for op in state.graph.ops if isinstance(op, QExperts)
        for number, share in enumerate(op.asked or [1.0] * len(op.experts)) if share >= LIKELY
    ]
