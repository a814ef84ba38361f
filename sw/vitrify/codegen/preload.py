"""Weights that go to the token memory ahead of time, while others are multiplied.

Which experts an image asks for is known only behind the router, when the core has nothing else to
do than to wait for their weights.  Those that are likely to be asked for are loaded before, as soon
as there is room, and taken from there two columns a cycle.

Layers of few rows wait for the bus as well: their rows are through before the next tile is there.
Their weights come in pieces of some c tiles, the first of them while layers before have more rows
than bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrify.arch.config import ArchConfig
from vitrify.quant.graph import Layer, QOp, QuantGraph
from vitrify.quant.tensors import QTensor

from .builder import Builder
from .memory import TensorMemory
from .pack import Bytes, are_nibbles, tile_words
from .placement import Placed
from .product import Stored
from .ranges import MOST_WORDS
from .strategy import Ahead

#: Share of the images (see :class:`~vitrify.quant.graph.Branch`) from which on a branch is loaded
#: before anybody has asked for it.
LIKELY = 0.5
#: Branches that are ahead at most.  The bus has time for about five experts in the blocks between
#: two mixtures; beyond seven their banks are those that the other engines want.
MOST_AHEAD = 7
#: Pieces that are ahead, if there are as many, and the part of the token memory that one may take.
#: While one is multiplied, none can be loaded in its place: fewer and larger ones wait longer.
PIECES = (8, 4)
_SHARE = 12


@dataclass(frozen=True)
class Portion:
    """Weights that are loaded at once: portion ``number`` of op ``op``, so many pair ``words``.

    ``tiles``: those c tiles of the only layer; ``None``: all of every layer.
    """

    op: str
    number: int
    layers: tuple[Layer, ...]
    words: int
    tiles: range | None = None


@dataclass
class _Slot:
    """A place for the weights of a portion; ``used`` is the last MATMUL that reads it."""

    place: Placed
    used: int | None


def branches(memory: TensorMemory) -> list[Portion]:
    """All branches that are likely to run, in the order in which they do.

    Those with weights of 4 bits are left out: the stream has half as many bytes of them, and fills
    two columns of a tile a cycle.
    """
    return [
        Portion(
            op.name, branch.number, branch.layers,
            sum(_words(memory, layer) for layer in branch.layers),
        )
        for op in memory.graph.ops for branch in op.branches()
        if branch.usage >= LIKELY
        and not all(are_nibbles(memory.arch, layer.weight) for layer in branch.layers)
    ]


def pieces(memory: TensorMemory) -> list[Portion]:
    """Pieces of all layers whose tiles take longer on the bus than their rows in the array."""
    arch, found = memory.arch, []
    each = max(1, arch.depth // arch.width)
    for op in memory.graph.ops:
        layer = op.divisible()
        if layer is None or are_nibbles(arch, layer.weight):
            continue
        rows = memory.rows(layer.out)
        # Two layers of more rows than one block has pass block by block, and not piece by piece.
        if rows > arch.max_rows or rows * arch.dram_bytes >= arch.width * arch.depth:
            continue
        k_tiles, c_tiles = _tiles(memory, layer)
        # Even ones, of whole words of the result.
        words, units = k_tiles * each * arch.tile_pairs, -(-c_tiles // each)
        room = min(arch.token_words // 2 // _SHARE, MOST_WORDS) // words
        if room:
            size = -(-units // -(-units // room)) * each
            found += [
                Portion(op.name, i, (layer,), len(tiles) * k_tiles * arch.tile_pairs, tiles)
                for i, tiles in enumerate(
                    range(start, min(start + size, c_tiles)) for start in range(0, c_tiles, size)
                )
            ]
    return found


def _tiles(memory: TensorMemory, layer: Layer) -> tuple[int, int]:
    """Tiles along the depth and along the columns of a layer."""
    depth, columns = (memory.spread_of(name).physical for name in (layer.x, layer.out))
    return -(-depth // memory.arch.depth), -(-columns // memory.arch.width)


def _words(memory: TensorMemory, layer: Layer) -> int:
    """Pair words of a layer's tiles."""
    k_tiles, c_tiles = _tiles(memory, layer)
    return k_tiles * c_tiles * memory.arch.tile_pairs


def begins(graph: QuantGraph, arch: ArchConfig, portions: Sequence[Portion]) -> int | None:
    """The last op before which LOADs of ``portions`` may begin and be over when they are used.

    Until then the bus has other weights to bring as well; ``None``: it is never idle so long.
    """
    first = next(i for i, op in enumerate(graph.ops) if op.name == portions[0].op)
    left = 2.0 * sum(one.words for one in portions) * arch.depth
    for step in range(first - 1, -1, -1):
        left -= _idle(graph, arch, graph.ops[step])
        if left <= 0:
            return step
    return None


def _idle(graph: QuantGraph, arch: ArchConfig, op: QOp) -> float:
    """Bytes that the bus could bring while an op keeps the array busy, besides its own."""
    own = sum(layer.weight.size for layer in op.layers())
    return max(0.0, graph.macs.get(op.name, 0) / arch.macs * arch.dram_bytes - own)


class Preloads:
    """Slots in the token memory, filled in turn, in the order in which portions are used.

    A portion is known by the name of its op and its number.  None is ahead until slots have been
    reserved.
    """

    def __init__(self, memory: TensorMemory, builder: Builder) -> None:
        self._memory, self._builder = memory, builder
        #: Portions in the order of their use, and the place of each in it.
        self._portions: Sequence[Portion] = ()
        self._turn: dict[tuple[str, int], int] = {}
        self._slots: list[_Slot] = []
        self._loads: list[int] = []
        self._done = 0

    def reserve(self, ahead: Ahead) -> None:
        """Make room for so many portions, or as many as there are."""
        memory = self._memory
        portions = (pieces if ahead.pieces else branches)(memory)
        self._portions = portions
        self._turn = {(one.op, one.number): i for i, one in enumerate(portions)}
        words = max((one.words for one in portions), default=0)
        # Side by side in few banks: the others are for what is read meanwhile.
        before = list(memory.placed)
        used = len(self._builder.matmuls) - 1
        for i in range(min(ahead.slots, len(portions))):
            # Rows of K bytes, low and high: the words of two columns.
            tensor = QTensor(f"weights[{i}]", 1, words * memory.arch.depth, 16, 1.0)
            place = memory.place(tensor, apart=before, last=ahead.pieces)
            self._slots.append(_Slot(place, used if used >= 0 else None))
            memory.release_later(tensor.name, len(memory.graph.ops))

    def __len__(self) -> int:
        """Portions that are ahead at most."""
        return len(self._slots)

    def __contains__(self, portion: tuple[str, int]) -> bool:
        return portion in self._turn

    def fill(self) -> None:
        """LOAD the next portion, if a slot is free for it."""
        number = len(self._loads)
        if number - self._done == len(self._slots) or number == len(self._portions):
            return
        slot = self._slots[number % len(self._slots)]
        weights = self._weights(self._portions[number])
        self._loads.append(self._builder.preload(slot.place, weights, slot.used))

    def take(self, portion: tuple[str, int]) -> list[Stored]:
        """Where the weights of its layers are; it is the portion whose turn it is."""
        index = self._turn[portion]
        assert index == self._done
        if index == len(self._loads):
            self.fill()
        address, one = self._slots[index % len(self._slots)].place.address, self._portions[index]
        result = []
        for layer in one.layers:
            result.append(Stored(address, self._loads[index], one.tiles))
            address += _words(self._memory, layer)
        return result

    def release(self) -> None:
        """The portion that was taken last is used no more: its slot is free."""
        self._slots[self._done % len(self._slots)].used = len(self._builder.matmuls) - 1
        self._done += 1

    def _weights(self, portion: Portion) -> Bytes:
        """Tiles of all layers."""
        parts = []
        for layer in portion.layers:
            x, out = (self._memory.spread_of(name) for name in (layer.x, layer.out))
            weight = out.scatter(x.scatter(layer.weight, axis=1))
            if portion.tiles is not None:
                width = self._memory.arch.width
                weight = weight[portion.tiles.start * width : portion.tiles.stop * width]
            parts.append(tile_words(self._memory.arch, weight).reshape(-1))
        return np.concatenate(parts)
