"""Memory layouts: the token memory, the weight stream and tensors in DRAM.

Token memory
    ``banks`` banks of ``bank_words`` words of K bytes.  Word address ``a`` lies in bank
    ``a // bank_words``.  An **int8** tensor ``[rows, D]`` starts at a word address; row ``r``,
    channel ``d`` is byte ``d % K`` of word ``addr + r * stride + d // K``.  An **int16** tensor
    has a *pair* address: pair word ``p`` has its low bytes in bank ``2 * (p // bank_words)`` and
    its high bytes at the same place in the next bank (:func:`pair_banks`).

Weight stream of a MATMUL (in words of K bytes, in the order in which it is used)
    1. ``load_gain``: the gains of the input channels, one byte each, padded to ``k_tiles`` words
       (a PATTERN's ``gain_words``: all words of a row, whose taps and c tiles share them).
    2. ``load_table``: 256 bytes, entry ``i`` is the image of the signed byte ``i - 256*(i>=128)``
       (that is, indexed by the byte's bit pattern).
    3. ``stationary`` WEIGHTS or STORED, for every c tile: for every lane group the **parameters**
       of its E columns (E biases of 4 bytes, then E multipliers of 2 bytes, padded to whole
       words); then, WEIGHTS, for every k tile C words: word ``i`` holds the K weights of output
       column ``i``.  With ``nibbles`` they are C/2 words: the low halves of the bytes of word ``i``
       are the weights of column ``2i``, the high ones those of ``2i + 1``, -8 … 7; with
       ``trellis`` they are codes (:mod:`~vitrify.arch.trellis`).  On a core with
       two ``nibble_tiles``: for every two c tiles the parameters of both, then for every k tile C
       words: the low halves of word ``i`` are the weights of column ``i`` of the first c tile, the
       high ones those of the second (of one left over, anything).  With ``nibble_thirds`` the
       c tiles of nibbles have 3 C/2 columns, hence 3/2 of the lane groups and 3 C/4 words.

Stored weights (``stationary`` STORED)
    The C words of every k tile of every c tile, in the order of the stream, as an int16 tensor of
    one row: pair word ``i`` of a tile has output columns ``2i`` (low) and ``2i + 1`` (high).  With
    ``nibbles`` (of a core in ``nibble_thirds``) the 3 C/4 words of the stream, in the order of
    :func:`stored_thirds`: two of them, hence four columns, are a pair word.

Tensors in DRAM (LOAD and STORE)
    Word-major: word 0 of all rows, then word 1 of all rows.  int16: every element word becomes
    two DRAM words, low bytes then high bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .config import ArchConfig
from .isa import Instruction
from .modes import WITH_PARAMETERS, Stationary

#: Bits of a byte address on the DRAM bus.
ADDRESS_BITS = 40
#: Program images, inputs and outputs start at multiples of this (an AXI burst never crosses 4 KiB).
ALIGNMENT = 4096
#: Bytes at the end of the memory where the driver that uploaded a program signs it.
SIGNATURE_BYTES = 16


@dataclass(frozen=True)
class StreamLayout:
    """Sizes of the parts of one MATMUL's weight stream, in words of K bytes."""

    gain: int
    table: int
    #: Parameters of one c tile (all lane groups).
    params: int
    #: One stationary tile.
    tile: int
    k_tiles: int
    c_tiles: int
    #: C tiles of a pass, which share its stationary tiles.
    tiles_per_pass: int = 1

    @property
    def passes(self) -> int:
        """Passes over the rows, for each k tile; the last one may have fewer c tiles."""
        return -(-self.c_tiles // self.tiles_per_pass)

    @property
    def tiles(self) -> int:
        """All stationary tiles."""
        return self.passes * self.k_tiles * self.tile

    @property
    def total(self) -> int:
        """The whole stream."""
        return self.gain + self.table + self.c_tiles * self.params + self.tiles

    def divided(self) -> Iterator[tuple[slice, slice]]:
        """Where parameters and stationary tiles of each pass are, in words of the whole stream."""
        at = self.gain + self.table
        for first in range(0, self.c_tiles, self.tiles_per_pass):
            middle = at + min(self.tiles_per_pass, self.c_tiles - first) * self.params
            end = middle + self.k_tiles * self.tile
            yield slice(at, middle), slice(middle, end)
            at = end


def tiles_per_pass(arch: ArchConfig, nibbles: int) -> int:
    """C tiles that a MATMUL computes in one pass, given whether its weights are ``nibbles``."""
    return arch.nibble_tiles if nibbles else 1


def passes(arch: ArchConfig, instruction: Instruction) -> int:
    """How often a MATMUL streams its rows, for each of its k tiles."""
    return -(-instruction.c_tiles // tiles_per_pass(arch, instruction.nibbles))


def stream_layout(arch: ArchConfig, instruction: Instruction) -> StreamLayout:
    """Layout of the weight stream that belongs to a MATMUL."""
    weights = instruction.stationary == Stationary.WEIGHTS
    params = instruction.stationary in WITH_PARAMETERS
    per_pass, width = (
        tiles_per_pass(arch, instruction.nibbles), arch.tile_width(instruction.nibbles))
    return StreamLayout(
        gain=(instruction.values.get("gain_words", 0) or instruction.k_tiles)
        if instruction.load_gain else 0,
        table=arch.table_words if instruction.load_table else 0,
        params=width // arch.lanes * arch.param_words if params else 0,
        tile=width >> (instruction.nibbles and per_pass == 1) if weights else 0,
        k_tiles=instruction.k_tiles,
        c_tiles=instruction.c_tiles,
        tiles_per_pass=per_pass,
    )


def stored_thirds(width: int) -> list[int]:
    """Words of the stream in a STORED tile of nibbles with 3 C/2 columns, C = ``width``.

    The first C/2 words have both nibbles of an even byte column of the array, each of the others a
    nibble of two odd ones.  A pair has a word of either kind, as long as there are any of the
    second; then the even columns that are left come two by two.
    """
    both = [word for i in range(width // 4) for word in (i, width // 2 + i)]
    return [*both, *range(width // 4, width // 2)]


def pair_banks(arch: ArchConfig, address: int) -> tuple[int, int]:
    """Word addresses of the low and the high bytes of pair word ``address``."""
    pair, offset = divmod(address, arch.bank_words)
    low = 2 * pair * arch.bank_words + offset
    return low, low + arch.bank_words


def queue_entries(rows: int, choices: int, experts: int = 0, room: int = 0) -> int:
    """Entries of the row-index memory that the queues of a ROUTE take, those left free included."""
    return rows * choices + experts * room


def words(arch: ArchConfig, channels: int) -> int:
    """Words of K bytes that hold ``channels`` bytes."""
    return -(-channels // arch.depth)


def aligned(size: int) -> int:
    """``size`` rounded up to the alignment of regions."""
    return -(-size // ALIGNMENT) * ALIGNMENT
