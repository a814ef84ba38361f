"""Weights that go to the token memory ahead of time, while others are multiplied.

Which experts an image asks for is known only behind the router, when the core has nothing else to
do than to wait for their weights.  Those that are likely to be asked for are loaded before, as soon
as there is room, and taken from there two columns a cycle.

Layers of few rows wait for the bus as well: their rows are through before the next tile is there.
Their weights come in pieces of some c tiles, the first of them while layers before have more rows
than bytes.  From there on they follow each other round what room there is: the bus never waits for
the array, nor one layer for the end of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitrify.arch.isa import COMMAND_DEPTH
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import QTensor

from .alloc import PlacementError
from .builder import Builder
from .memory import TensorMemory
from .pack import Bytes, are_nibbles, tile_words
from .placement import Placed
from .portions import Portion, branches, layer_words, pieces, room_words
from .product import Stored
from .ranges import MOST_WORDS
from .strategy import Ahead


@dataclass
class _Room:
    """A piece of the token memory that portions share; ``used`` is the last MATMUL before them."""

    place: Placed
    used: int | None

    @property
    def words(self) -> int:
        """Its pair words."""
        return self.place.stride

    def part(self, start: int) -> Placed:
        """The place of what begins ``start`` pair words behind its own beginning."""
        return replace(self.place, address=self.place.address + start)


@dataclass
class _Loaded:
    """Where a portion is, or was.

    ``arrives``: when it may be there; ``used``: the last MATMUL that reads it, once that is known.
    """

    room: int
    start: int
    end: int
    load: int = -1
    arrives: float = 0
    used: int | None = None

    def overlaps(self, room: int, start: int, end: int) -> bool:
        """Whether it has a word from ``start`` to ``end`` (exclusive)."""
        return self.room == room and self.start < end and start < self.end


class Preloads:
    """Rooms in the token memory, filled in turn, in the order in which portions are used.

    A portion is known by the name of its op and its number.  None is ahead until rooms have been
    reserved.
    """

    def __init__(self, memory: TensorMemory, builder: Builder) -> None:
        self._memory, self._builder = memory, builder
        #: Portions in the order of their use, and the place of each in it.
        self._portions: Sequence[Portion] = ()
        self._turn: dict[tuple[str, int], int] = {}
        self._rooms: list[_Room] = []
        self._loaded: list[_Loaded] = []
        #: They are pieces of layers.
        self._divided = False
        #: Cycles in which array and bus may have done what has been emitted, and its LOADs.
        self._array = self._bus = 0.0
        self._ends: list[float] = []
        self._done = 0
        #: What a later op asks for comes op by op (:meth:`fill`).  All at once would take the bus
        #: from the weights of layers in between, and stop their instructions in a full queue.
        self._later = memory.job_images == 1

    def reserve(self, ahead: Ahead) -> None:
        """Take so many rooms: for a branch each, of which there may be fewer, or for pieces.

        Raises
        ------
        PlacementError
            If the memory has none for them, or not enough in one piece for the largest of them.
        """
        memory = self._memory
        portions = (pieces if ahead.pieces else branches)(memory)
        self._portions, self._divided = portions, ahead.pieces
        self._turn = {(one.op, one.number): i for i, one in enumerate(portions)}
        words = room_words(memory.arch) if ahead.pieces else max(
            (one.words for one in portions), default=0
        )
        # Side by side in few banks: the others are for what is read meanwhile.
        before = list(memory.placed)
        used = len(self._builder.matmuls) - 1
        for i in range(ahead.slots if ahead.pieces else min(ahead.slots, len(portions))):
            # Rows of K bytes, low and high: the words of two columns.
            tensor = QTensor(f"weights[{i}]", 1, words * memory.arch.depth, 16, 1.0)
            place = memory.place(tensor, apart=before, last=ahead.pieces)
            memory.release_later(tensor.name, len(memory.job.ops))
            self._add(place, used if used >= 0 else None, join=ahead.pieces)
        largest = max((room.words for room in self._rooms), default=0)
        if any(one.words > largest for one in portions):
            raise PlacementError("no room in one piece for the largest piece of weights")

    def _add(self, place: Placed, used: int | None, *, join: bool) -> None:
        """A room, or a part of the one behind or before it."""
        for room in self._rooms if join else ():
            if place.address + place.stride == room.place.address:
                room.place = replace(place, stride=place.stride + room.place.stride)
                return
            if room.place.address + room.words == place.address:
                room.place = replace(room.place, stride=place.stride + room.place.stride)
                return
        self._rooms.append(_Room(place, used))

    def __len__(self) -> int:
        """Rooms."""
        return len(self._rooms)

    @property
    def size(self) -> int:
        """Bytes of all rooms."""
        return sum(room.words for room in self._rooms) * 2 * self._memory.arch.depth

    def __contains__(self, portion: tuple[str, int]) -> bool:
        return portion in self._turn

    def fill(self, op: QOp) -> None:
        """LOAD what comes next while ``op``, which follows, is at work."""
        if not self._divided:
            self._load()
            return
        self._emit(MOST_WORDS)
        if (op.name, 0) not in self:
            arch = self._memory.arch
            own = sum(layer.weight.size for layer in op.layers())
            self._bus = max(self._bus, self._array) + own / arch.dram_bytes
            work = self._memory.graph.macs.get(op.name, 0) / arch.macs
            self._array = max(self._array + work, self._bus)

    def _emit(self, most: int = 0) -> None:
        """LOAD as much as soon has been done: the dispatcher waits while their queue is full.

        Several that lie side by side come by one LOAD, if they have ``most`` words.
        """
        arch = self._memory.arch
        # Their ends are in order.
        while sum(end > self._array for end in self._ends[-COMMAND_DEPTH:]) < COMMAND_DEPTH:
            first = len(self._loaded)
            words = self._load(most)
            if not words:
                break
            self._bus = max(self._bus, self._array) + words * 2 * arch.depth / arch.dram_bytes
            self._ends.append(self._bus)
            for one in self._loaded[first:]:
                one.arrives = self._bus

    def _load(self, most: int = 0) -> int:
        """LOAD the next portion, with those of ``most`` words behind it; returns their words."""
        first, words, place = len(self._loaded), 0, None
        for one in self._portions[first:]:
            found = self._next(one.words)
            if found is None or (words and (found.start == 0 or words + one.words > most)):
                break
            place = place or found
            words += one.words
            self._loaded.append(found)
        if place is None:
            return 0
        room, group = self._rooms[place.room], range(first, len(self._loaded))
        after = max((
            one.used for one in self._loaded[:first]
            if one.used is not None and one.overlaps(place.room, place.start, place.start + words)
        ), default=room.used)
        weights = np.concatenate([self._weights(self._portions[i]) for i in group])
        load = self._builder.preload(room.part(place.start), weights, after)
        for i in group:
            self._loaded[i].load = load
        return words

    def _next(self, words: int) -> _Loaded | None:
        """The place behind the latest portion, if what was there before is used no more."""
        if not self._rooms:
            return None
        room, start = 0, 0
        if self._loaded:
            room, start = self._loaded[-1].room, self._loaded[-1].end
        while start + words > self._rooms[room].words:
            room, start = (room + 1) % len(self._rooms), 0
        live = self._loaded[self._done:]
        if any(one.overlaps(room, start, start + words) for one in live):
            return None
        return _Loaded(room, start, start + words)

    def take(self, portion: tuple[str, int]) -> list[Stored]:
        """Where the weights of its layers are; it is the portion whose turn it is."""
        index = self._turn[portion]
        assert index == self._done
        if index == len(self._loaded):
            self._load()
        there, one = self._loaded[index], self._portions[index]
        address = self._rooms[there.room].part(there.start).address
        result = []
        for layer in one.layers:
            result.append(Stored(address, there.load, one.tiles))
            address += layer_words(self._memory, layer)
        return result

    def release(self) -> None:
        """The portion that was taken last is used no more: others may take its place."""
        one = self._loaded[self._done]
        one.used = len(self._builder.matmuls) - 1
        self._done += 1
        if not self._divided:
            ops = {one.op for one in self._portions[len(self._loaded):][:1]}
            if not self._later or ops == {self._portions[self._done - 1].op}:
                self._load()
            return
        words, tile = one.end - one.start, self._memory.arch.tile_pairs(False)
        rows = self._memory.rows(self._portions[self._done - 1].layers[0].out)
        self._array = max(self._array, one.arrives) + words * max(rows, tile) / tile
        self._emit()

    def _weights(self, portion: Portion) -> Bytes:
        """Tiles of all layers."""
        parts = []
        for layer in portion.layers:
            x, out = (self._memory.spread_of(name) for name in (layer.x, layer.out))
            weight = out.scatter(x.scatter(layer.weight, axis=1))
            if portion.tiles is not None:
                width = self._memory.arch.width
                weight = weight[portion.tiles.start * width : portion.tiles.stop * width]
            nibbles = are_nibbles(self._memory.arch, layer.weight, stored=True)
            tiles = tile_words(self._memory.arch, weight, nibbles=nibbles, stored=True)
            parts.append(tiles.reshape(-1))
        return np.concatenate(parts)
