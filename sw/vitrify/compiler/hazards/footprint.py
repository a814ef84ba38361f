"""Which words and entries the instructions touch, as arrays of addresses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats, isa, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode, Output, Region, Stationary, Transform

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Row numbers of a MATMUL's operand or result.

    ``ordered``: the i-th row that is streamed is ``ids[i]``.  Otherwise it is any of them, as in
    the queue of an expert.
    """

    ids: Index
    ordered: bool


@dataclass(frozen=True)
class Queues:
    """What a ROUTE leaves behind: entries of the row-index memory, and numbers of rows."""

    base: int
    rows: int
    experts: int
    choices: int

    @property
    def entries(self) -> Index:
        """All queues."""
        return np.arange(self.base, self.base + self.rows * self.choices)


class Footprint:
    """Addresses of one program's instructions."""

    def __init__(self, arch: ArchConfig, image: npt.NDArray[np.uint8]) -> None:
        self.arch, self._image = arch, image
        #: Row-index entries as far as known: -1 where not.
        self._index = np.full(arch.index_entries, -1, np.int64)
        self.queues: Queues | None = None

    # Lists ---------------------------------------------------------------------------------
    def load_index(self, op: Instruction) -> Index:
        """Entries that a LOAD_INDEX writes; those from the program image are known from now on."""
        entries = np.arange(op.base, op.base + op.count)
        known = op.region == Region.PROGRAM and not op.task_stride
        size = op.count * formats.INDEX_BYTES
        self._index[entries] = (
            self._image[op.offset : op.offset + size].view("<u2") if known else -1
        )
        return entries

    def route(self, op: Instruction) -> Index:
        """Entries that a ROUTE writes."""
        self.queues = Queues(op.base, op.rows, op.experts, op.choices)
        self._index[self.queues.entries] = -1
        return self.queues.entries

    def listed(self, op: Instruction, listed: int, base: int) -> Index:
        """Entries that are read for a MATMUL's row numbers."""
        if not listed:
            return np.zeros(0, np.int64)
        if op.expert_rows and self.queues:
            return self.queues.entries
        return np.arange(base, base + op.rows)

    def rows(self, op: Instruction, listed: int, base: int) -> Rows:
        """Rows of the operand or the result."""
        straight = np.arange(op.rows)
        if not listed:
            return Rows(straight, True)
        queues = self.queues
        if op.expert_rows and queues:
            if queues.choices == queues.experts:
                # Every row goes to every expert.
                ids = straight + op.expert_first
                return Rows(ids[ids < queues.rows], True)
            return Rows(np.arange(queues.rows), False)
        ids = self._index[base : base + op.rows]
        if (ids < 0).any():
            return Rows(np.arange(isa.FORMATS[Opcode.MATMUL].field("rows").max), False)
        return Rows(ids, True)

    # Words -----------------------------------------------------------------------------------
    def planes(self, address: Index, wide: bool) -> list[Index]:
        """Word addresses of words or of both halves of pair words."""
        if not wide:
            return [address]
        size = self.arch.bank_words
        low = address + address // size * size
        return [low, low + size]

    def operand(self, op: Instruction, rows: Rows) -> list[Index]:
        """Words of the streamed rows ``[rows, k tiles]``."""
        address = op.src_addr + rows.ids[:, None] * op.src_stride + np.arange(op.k_tiles)
        return self.planes(address, op.transform in (Transform.NORM, Transform.SCALE))

    def result(self, op: Instruction, rows: Rows, base: int) -> list[Index]:
        """Words ``[rows, words]`` of the result, or of what is added to, at ``base``."""
        words = memmap.words(self.arch, self.columns(op))
        address = base + rows.ids[:, None] * op.dst_stride + np.arange(words)
        return self.planes(address, op.output != Output.INT8)

    def tiles_of(self, op: Instruction) -> tuple[Index, Index]:
        """First and last c tile that writes into each word of a result's row."""
        words = np.arange(memmap.words(self.arch, self.columns(op))) * self.arch.depth
        last = (words + self.arch.depth - 1) // self.arch.width
        return words // self.arch.width, np.minimum(last, op.c_tiles - 1)

    def columns(self, op: Instruction) -> int:
        """Output columns of a MATMUL."""
        return (op.c_tiles - 1) * self.arch.width + op.c_last

    def stationary(self, op: Instruction) -> list[Index]:
        """Words of the token memory that the tiles come from."""
        arch = self.arch
        if op.stationary == Stationary.WEIGHTS:
            return []
        if op.stationary == Stationary.STORED:
            words = op.c_tiles * op.k_tiles * arch.tile_pairs
            return self.planes(op.st_addr + np.arange(words), True)
        rows, channels = self.columns(op), (op.k_tiles - 1) * arch.depth + op.k_last
        if op.stationary == Stationary.COLUMNS:
            rows, channels = channels, rows
        words = np.arange(memmap.words(arch, channels))
        return [op.st_addr + np.arange(rows)[:, None] * op.st_stride + words]

    def moved(self, op: Instruction) -> list[Index]:
        """Words ``[words, rows]`` of a LOAD or STORE, in the order in which they move."""
        address = op.addr + np.arange(op.words)[:, None] + np.arange(op.rows) * op.stride
        return self.planes(address, bool(op.wide))

    @staticmethod
    def is_zero(op: Instruction) -> bool:
        """Whether the result is zero whatever is streamed."""
        return (
            op.stationary in (Stationary.ROWS, Stationary.COLUMNS)
            and not op.multiplier and not op.row_scale
        )

    def zero_tiles(self, op: Instruction) -> npt.NDArray[np.bool_]:
        """``[c tiles, k tiles]``: whose weights are all zero, whatever is streamed past them."""
        layout = memmap.stream_layout(self.arch, op)
        if op.stationary != Stationary.WEIGHTS or op.transform != Transform.NONE:
            return np.zeros((op.c_tiles, op.k_tiles), bool)
        depth = self.arch.depth
        start = op.stream_offset + (layout.gain + layout.table) * depth
        size = op.c_tiles * layout.c_tile * depth
        tiles = self._image[start : start + size].reshape(op.c_tiles, layout.c_tile * depth)
        weights = tiles[:, layout.params * depth :].reshape(op.c_tiles, op.k_tiles, -1)
        return np.logical_not(np.any(weights, axis=2))
