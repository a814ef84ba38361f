"""Weights that are worth loading ahead of time, in portions, and when that may begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.quant.graph import Layer, QOp

from .memory import TensorMemory
from .pack import are_nibbles
from .strategy import Ahead

#: Share of the images (see :class:`~vitrify.quant.graph.Branch`) from which on a branch is loaded
#: before anybody has asked for it.
LIKELY = 0.5
#: Branches that are ahead at most.  The bus has time for about five experts in the blocks between
#: two mixtures; beyond seven their banks are those that the other engines want.
MOST_AHEAD = 7
#: Rooms that make up the token memory.  A piece takes about one of them, and is a c tile at least.
#: While one is multiplied, none can be loaded in its place: fewer and larger ones wait longer.
_ROOMS = 40
#: Rooms that a piece takes at most, and the bytes of instructions that it is worth.
_MOST_ROOMS = 5
_WORTH = 32
#: Pieces, as large as the largest, that all rooms together hold at least: with room for one the
#: bus waits for the array.
_IN_TURN = 2


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


def branches(memory: TensorMemory) -> list[Portion]:
    """All branches that are likely to run, in the order in which they do.

    Those with weights of 4 bits are left out where they would take 8 in the token memory: the
    stream has half as many bytes of them, and fills two columns of a tile a cycle.
    """
    return [
        Portion(
            op.name, branch.number, branch.layers,
            sum(layer_words(memory, layer) for layer in branch.layers),
        )
        for op in memory.job.ops[memory.strategy.alone :] for branch in op.branches()
        if branch.usage >= LIKELY
        and (memory.arch.stored_nibbles
             or not all(are_nibbles(memory.arch, layer.weight) for layer in branch.layers))
    ]


def pieces(memory: TensorMemory) -> list[Portion]:
    """Pieces of all layers whose tiles take longer on the bus than their rows in the array."""
    arch, found = memory.arch, []
    each = max(1, arch.depth // arch.width)
    room, least = room_words(arch), _WORTH * INSTRUCTION_BYTES // (2 * arch.depth)
    most = _MOST_ROOMS * room
    size = max(room, min(most, least))
    made: set[str] = set()
    for number, op in enumerate(memory.job.ops):
        layer = op.divisible()
        made.update(op.results())
        if number < memory.strategy.alone or layer is None or are_nibbles(arch, layer.weight):
            continue
        # What gathers statistics waits for MATMULs, and not for what DRAM brings.
        if layer.gathers and layer.x not in made:
            continue
        images = memory.job_images
        rows = len(op.written(images, memory.job.tensors[layer.out].rows // images))
        # Two layers whose rows pass block by block do not pass piece by piece.
        blocks = max(-(-rows // arch.max_rows), min(rows, memory.strategy.row_blocks))
        if blocks > 1 or rows * arch.dram_bytes >= arch.width * arch.depth:
            continue
        k_tiles, c_tiles = _tiles(memory, layer)
        # Even ones, of whole words of the result.
        words, units = k_tiles * each * arch.tile_pairs(False), -(-c_tiles // each)
        if words <= most:
            count = max(1, size // words)
            tiles_each = -(-units // -(-units // count)) * each
            found += [
                Portion(op.name, i, (layer,), len(tiles) * k_tiles * arch.tile_pairs(False), tiles)
                for i, tiles in enumerate(
                    range(start, min(start + tiles_each, c_tiles))
                    for start in range(0, c_tiles, tiles_each)
                )
            ]
    return found


def _tiles(memory: TensorMemory, layer: Layer, nibbles: bool = False) -> tuple[int, int]:
    """Tiles along the depth and along the columns of a layer."""
    depth, columns = (memory.spread_of(name).physical for name in (layer.x, layer.out))
    return -(-depth // memory.arch.depth), -(-columns // memory.arch.tile_width(nibbles))


def layer_words(memory: TensorMemory, layer: Layer) -> int:
    """Pair words of a layer's tiles."""
    nibbles = are_nibbles(memory.arch, layer.weight, stored=True)
    k_tiles, c_tiles = _tiles(memory, layer, nibbles)
    return k_tiles * c_tiles * memory.arch.tile_pairs(nibbles)


def bus_is_ahead(memory: TensorMemory) -> bool:
    """Whether all weights come sooner than the array multiplies with them for an image; of branches
    those that are likely to run.
    """
    arch, graph, narrow, words = memory.arch, memory.job, set[str](), 0.0
    for op in graph.ops:
        found = [branch for branch in op.branches() if branch.usage >= LIKELY]
        layers = [one for branch in found for one in branch.layers] or op.layers()
        for layer in layers:
            size, nibbles = float(np.prod(layer.weight.shape[-2:])), are_nibbles(arch, layer.weight)
            words += size / 2 if nibbles else size
            narrow |= {layer.name} if nibbles else set()
    array = sum(
        macs / memory.job_images * arch.width / (arch.macs * arch.tile_width(name in narrow))
        for name, macs in graph.macs.items())
    return words / arch.dram_bytes < array


def rooms_ahead(memory: TensorMemory) -> Iterator[Ahead]:
    """Rooms for pieces that a lowered network may have left free, the most first."""
    portions, room = pieces(memory), room_words(memory.arch)
    if not portions:
        return
    ends = np.cumsum([0, *(one.words for one in portions)])
    # One is loaded while another is multiplied.
    least = -(-_IN_TURN * max(one.words for one in portions) // room)
    for count in range(min(_ROOMS, -(-int(ends[-1]) // room)), least - 1, -1):
        first = int(np.searchsorted(ends, count * room, "right")) - 1
        step = _begins(memory, portions[:first]) if first else None
        # What an op makes may lie in the way of rooms that are taken right before it.
        for begin in () if step is None else (step, step - 1):
            if begin >= 0 and 2 * count * room <= memory.free_from(begin):
                yield Ahead(count, pieces=True, step=begin)


def room_words(arch: ArchConfig) -> int:
    """Pair words of a room for pieces."""
    return arch.token_words // 2 // _ROOMS


def _begins(memory: TensorMemory, portions: Sequence[Portion]) -> int | None:
    """The last op before which LOADs of ``portions`` may begin and be over when they are used.

    Until then the bus has other weights to bring as well, which are not to wait: it is idle twice
    as long, or from the first op on long enough.  ``None``: it is never idle so long.
    """
    graph, arch = memory.job, memory.arch
    first = next(i for i, op in enumerate(graph.ops) if op.name == portions[0].op)
    wanted, found = 2.0 * sum(one.words for one in portions) * arch.depth, 0.0
    for step in range(first - 1, -1, -1):
        images = memory.job_images if step < memory.strategy.alone else 1
        found += _idle(arch, graph.ops[step], graph.macs.get(graph.ops[step].name, 0) // images)
        if found >= 2 * wanted:
            return step
    return 0 if found >= wanted else None


def _idle(arch: ArchConfig, op: QOp, macs: int) -> float:
    """Bytes that the bus could bring while an op keeps the array busy, besides its own."""
    own = sum(layer.weight.size for layer in op.layers())
    return max(0.0, macs / arch.macs * arch.dram_bytes - own)
