"""Weights of branches that go to the token memory ahead of time, while others are multiplied.

Which experts an image asks for is known only behind the router, when the core has nothing else to
do than to wait for their weights.  Those that are likely to be asked for are loaded before, as soon
as there is room, and taken from there two columns a cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.arch.config import ArchConfig
from vitrify.quant.graph import Branch, Layer, QuantGraph
from vitrify.quant.tensors import QTensor

from .builder import Builder
from .memory import TensorMemory
from .pack import Bytes, are_nibbles, tile_words
from .placement import Placed
from .product import Stored

#: Share of the images (see :class:`~vitrify.quant.graph.Branch`) from which on a branch is loaded
#: before anybody has asked for it.
LIKELY = 0.5
#: Branches that are ahead at most.  The bus has time for about five experts in the blocks between
#: two mixtures; beyond seven their banks are those that the other engines want.
MOST_AHEAD = 7


@dataclass
class _Slot:
    """A place for the weights of a branch; ``used`` is the last MATMUL that reads it."""

    place: Placed
    used: int | None = None


def branches(graph: QuantGraph, arch: ArchConfig) -> list[tuple[str, Branch]]:
    """Name of the op and branch of all that are likely to run, in the order in which they do.

    Those with weights of 4 bits are left out: the stream has half as many bytes of them, and fills
    two columns of a tile a cycle.
    """
    return [
        (op.name, branch)
        for op in graph.ops for branch in op.branches()
        if branch.usage >= LIKELY
        and not all(are_nibbles(arch, layer.weight) for layer in branch.layers)
    ]


class Preloads:
    """Slots in the token memory, filled in turn, in the order in which branches run.

    A branch is known by the name of its op and its number.  None is ahead until slots have been
    reserved.
    """

    def __init__(self, memory: TensorMemory, builder: Builder) -> None:
        self._memory, self._builder = memory, builder
        #: Branches in the order in which they run, and the place of each in it.
        self._branches: list[Branch] = []
        self._turn: dict[tuple[str, int], int] = {}
        self._slots: list[_Slot] = []
        self._loads: list[int] = []
        self._done = 0

    def reserve(self, slots: int) -> None:
        """Make room for ``slots`` branches, or as many as there are."""
        memory = self._memory
        found = branches(memory.graph, memory.arch) if slots else []
        self._branches = [branch for _, branch in found]
        self._turn = {(op, branch.number): i for i, (op, branch) in enumerate(found)}
        words = max((sum(map(self._pairs, b.layers)) for b in self._branches), default=0)
        # Side by side in few banks: the others are for what is read meanwhile.
        before = list(memory.placed)
        for i in range(min(slots, len(self._branches))):
            # Rows of K bytes, low and high: the words of two columns.
            tensor = QTensor(f"weights[{i}]", 1, words * memory.arch.depth, 16, 1.0)
            self._slots.append(_Slot(memory.place(tensor, apart=before)))
            memory.release_later(tensor.name, len(memory.graph.ops))

    def __len__(self) -> int:
        """Branches that are ahead at most."""
        return len(self._slots)

    def __contains__(self, branch: tuple[str, int]) -> bool:
        return branch in self._turn

    def fill(self) -> None:
        """LOAD the next branch, if a slot is free for it."""
        number = len(self._loads)
        if number - self._done == len(self._slots) or number == len(self._branches):
            return
        slot = self._slots[number % len(self._slots)]
        weights = np.concatenate([self._weights(x) for x in self._branches[number].layers])
        self._loads.append(self._builder.preload(slot.place, weights, slot.used))

    def take(self, branch: tuple[str, int]) -> list[Stored]:
        """Where the weights of its layers are; it is the branch whose turn it is."""
        index = self._turn[branch]
        # One is loaded before every op and behind every branch, and no slot is taken but by it.
        assert index == self._done < len(self._loads)
        address = self._slots[index % len(self._slots)].place.address
        result = []
        for layer in self._branches[index].layers:
            result.append(Stored(address, self._loads[index]))
            address += self._pairs(layer)
        return result

    def release(self) -> None:
        """The branch that was taken last runs no more: its slot is free."""
        self._slots[self._done % len(self._slots)].used = len(self._builder.matmuls) - 1
        self._done += 1

    def _weights(self, layer: Layer) -> Bytes:
        """Tiles of a layer."""
        x, out = (self._memory.spread_of(name) for name in (layer.x, layer.out))
        weight = out.scatter(x.scatter(layer.weight, axis=1))
        return tile_words(self._memory.arch, weight).reshape(-1)

    def _pairs(self, layer: Layer) -> int:
        """Pair words of a layer's tiles."""
        arch = self._memory.arch
        depth, columns = (
            self._memory.spread_of(name).physical for name in (layer.x, layer.out)
        )
        return -(-depth // arch.depth) * -(-columns // arch.width) * arch.tile_pairs
