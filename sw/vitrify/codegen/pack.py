"""Bytes of the program image: weight streams and constants, laid out as ``arch.memmap`` says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import memmap, trellis
from vitrify.arch.config import ArchConfig
from vitrify.quant.rounding import GRIDS
from vitrify.quant.wanted import NARROW

Bytes = npt.NDArray[np.uint8]


def pad_to(array: npt.NDArray[Any], axis: int, multiple: int) -> npt.NDArray[Any]:
    """``array`` with zeros behind ``axis`` up to a multiple."""
    missing = -array.shape[axis] % multiple
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)


def gain_words(arch: ArchConfig, gain: npt.NDArray[np.uint8]) -> Bytes:
    """LayerNorm gains, one byte a channel."""
    return pad_to(gain.astype(np.uint8), 0, arch.depth)


def table_words(table: npt.NDArray[np.int8]) -> Bytes:
    """An activation table, indexed by bit pattern."""
    return table.astype(np.int8).view(np.uint8)


def are_nibbles(
    arch: ArchConfig, weight: npt.NDArray[np.int8], *, stored: bool = False
) -> bool:
    """Whether four bits hold every weight, and the core takes such, of ``stored`` tiles, too.

    Whether they have codes, where the core wants these, only :func:`tile_words` finds out.
    """
    if not (arch.stored_nibbles if stored else arch.nibbles):
        return False
    return trellis.spans(weight) if arch.trellis_codes else GRIDS[NARROW].holds(weight)


class NoCodesError(ValueError):
    """Weights within the range of a core's codes are not levels of any, in these places."""


def _tiles(
    arch: ArchConfig, weight: npt.NDArray[np.int8], nibbles: bool = False
) -> npt.NDArray[np.int8]:
    """``[passes, k tiles, columns of a pass, K]`` of ``weight [columns, depth]``."""
    k, columns = arch.depth, memmap.tiles_per_pass(arch, nibbles) * arch.tile_width(nibbles)
    padded = pad_to(pad_to(weight, 0, columns), 1, k)
    return padded.reshape(-1, columns, padded.shape[1] // k, k).transpose(0, 2, 1, 3)


def tile_words(
    arch: ArchConfig, weight: npt.NDArray[np.int8], *, nibbles: bool = False, stored: bool = False
) -> Bytes:
    """Tiles of ``weight [columns, depth]``: ``[passes, bytes]``.

    A pass has one c tile, or with nibbles ``nibble_tiles``.  Pair words of ``stored`` ones have
    even words in the low plane, odd ones in the high plane.

    Raises
    ------
    NoCodesError
        For nibbles that have to be codes, and cannot.
    """
    c, per_pass = arch.tile_width(nibbles), memmap.tiles_per_pass(arch, nibbles)
    tiles = _tiles(arch, weight, nibbles)
    if nibbles and arch.trellis_codes:
        codes = trellis.encode(tiles)
        if codes is None:
            raise NoCodesError
        tiles = codes
    if nibbles:
        # Columns that share a byte: neighbours, or those at the same place of two c tiles.
        low, high = (tiles[:, :, half::2] for half in (0, 1)) if per_pass == 1 else (
            tiles[:, :, half * c : (half + 1) * c] for half in (0, 1))
        tiles = low & 0xF | high << 4
        if stored:
            tiles = tiles[:, :, memmap.stored_thirds(arch.width)]
    return tiles.reshape(len(tiles), -1).view(np.uint8)


def parameter_words(
    arch: ArchConfig, bias: npt.NDArray[np.int32], multiplier: npt.NDArray[np.uint16], *,
    nibbles: bool = False,
) -> Bytes:
    """Parameters of all columns: ``[c tiles, bytes]``."""
    width = arch.tile_width(nibbles)

    def lanewise(values: npt.NDArray[Any], dtype: str) -> Bytes:
        return pad_to(values.astype(dtype), 0, width).reshape(-1, arch.lanes).view(np.uint8)

    record = np.concatenate([lanewise(bias, "<i4"), lanewise(multiplier, "<u2")], axis=1)
    words = pad_to(record, 1, arch.depth)
    return words.reshape(len(words) * arch.lanes // width, -1)


def weight_words(
    arch: ArchConfig,
    weight: npt.NDArray[np.int8],
    bias: npt.NDArray[np.int32],
    multiplier: npt.NDArray[np.uint16],
    *,
    nibbles: bool = False,
) -> Bytes:
    """Parameters and tiles of ``weight [columns, depth]``, pass by pass."""
    parameters, tiles = (
        parameter_words(arch, bias, multiplier, nibbles=nibbles),
        tile_words(arch, weight, nibbles=nibbles))
    per_pass = memmap.tiles_per_pass(arch, nibbles)
    return np.concatenate([part for number, tile in enumerate(tiles) for part in (
        parameters[number * per_pass : (number + 1) * per_pass].reshape(-1), tile)])


class ImageBuilder:
    """The program image behind the instructions: blocks at multiples of K bytes."""

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._blocks: list[Bytes] = []
        self._size = 0
        self._known: dict[bytes, int] = {}

    def add(self, block: Bytes) -> int:
        """Append (or find an equal) block; returns its offset from the first block."""
        block = pad_to(block, 0, self._arch.depth)
        key = block.tobytes()
        if key in self._known:
            return self._known[key]
        offset = self._size
        self._blocks.append(block)
        self._size += len(block)
        self._known[key] = offset
        return offset

    def build(self, instructions: bytes) -> tuple[Bytes, int]:
        """The image and the offset that every :meth:`add` result has to be moved by."""
        code = pad_to(np.frombuffer(instructions, np.uint8), 0, self.code_alignment)
        return np.concatenate([code, *self._blocks]), len(code)

    @property
    def code_alignment(self) -> int:
        """Blocks begin at a multiple of this behind the instructions."""
        return max(self._arch.depth, memmap.ALIGNMENT // 64)
