"""Which words and entries the instructions touch, as arrays of addresses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import access, formats, isa, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Instruction, Opcode, Region, Stationary, Transform
from vitrify.arch.modes import ADDING_OUTPUTS, NARROW_OUTPUTS, WIDE_TRANSFORMS

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
    size: int
    rows: int
    experts: int
    choices: int

    @property
    def entries(self) -> Index:
        """All queues."""
        return np.arange(self.base, self.base + self.size)


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
        if op.joins and self.queues:
            rows, choices = self.queues.rows + op.rows, min(self.queues.choices, op.choices)
            self.queues = replace(self.queues, rows=rows, choices=choices)
        else:
            size = memmap.queue_entries(op.rows, op.choices, op.experts, op.room)
            self.queues = Queues(op.base, size, op.rows, op.experts, op.choices)
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
        """Words of the streamed rows ``[rows, k tiles]``, for every group of c tiles; -1: none."""
        wide, found = op.transform in WIDE_TRANSFORMS, []
        groups = range(0, op.c_tiles, op.c_group) if op.k_step else range(1)
        for c in groups:
            if op.tapped:
                address = access.streamed(op).words(c, self._index)
            else:
                first = op.src_addr + c // op.c_group * op.k_step
                address = first + rows.ids[:, None] * op.src_stride + np.arange(op.k_tiles)
            found += self.planes(address, wide)
        return found

    def normalised(self, op: Instruction, rows: Rows) -> Index:
        """Row statistics ``[rows, taps]`` that the operand transform reads; -1: none."""
        ids = access.streamed(op).row_ids(self._index) if op.tapped else rows.ids[:, None]
        return np.where(ids < 0, -1, op.stat_src + ids)

    def result(self, op: Instruction, rows: Rows) -> list[Index]:
        """Words ``[rows, words]`` of the result."""
        return self._row_words(op, op.dst_addr, op.dst_stride, rows)

    def old(self, op: Instruction, rows: Rows) -> list[tuple[bool, list[Index]]]:
        """Words ``[rows, words]`` that the result may be combined with.

        With each, whether words that nobody has written are not read: an expert adds to what is
        not there yet only where it is not a row's first.
        """
        if op.output not in ADDING_OUTPUTS:
            return []
        if op.add_source:
            straight = Rows(np.arange(op.rows), True)
            return [(False, self._row_words(op, op.add_addr, op.add_stride, straight))]
        if not op.gate:
            return [(False, self.result(op, rows))]
        first = self._row_words(op, op.add_addr, op.dst_stride, rows)
        return [(False, first), (True, self.result(op, rows))]

    def _row_words(self, op: Instruction, base: int, stride: int, rows: Rows) -> list[Index]:
        words = np.arange(memmap.words(self.arch, self.columns(op)))
        address = base + rows.ids[:, None] * stride + words
        return self.planes(address, op.output not in NARROW_OUTPUTS)

    def tiles_of(self, op: Instruction) -> tuple[Index, Index]:
        """First and last c tile that writes into each word of a result's row."""
        words = np.arange(memmap.words(self.arch, self.columns(op))) * self.arch.depth
        width = self.arch.tile_width(op.nibbles)
        last = (words + self.arch.depth - 1) // width
        return words // width, np.minimum(last, op.c_tiles - 1)

    def columns(self, op: Instruction) -> int:
        """Output columns of a MATMUL."""
        return access.shape(self.arch, op)[1]

    def stationary(self, op: Instruction) -> list[Index]:
        """Words of the token memory that the tiles come from."""
        arch = self.arch
        if op.stationary == Stationary.WEIGHTS:
            return []
        if op.stationary == Stationary.STORED:
            return self.planes(op.st_addr + np.arange(access.stored_words(arch, op)), True)
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
        plain = op.transform == Transform.NONE and not op.k_step
        if op.stationary != Stationary.WEIGHTS or not plain:
            return np.zeros((op.c_tiles, op.k_tiles), bool)
        depth = self.arch.depth
        stream = self._image[op.stream_offset :][: layout.total * depth].reshape(-1, depth)
        weights = np.stack([stream[tiles] for _, tiles in layout.divided()])
        # Of c tiles in one pass none is zero before all are.
        zero = np.logical_not(np.any(weights.reshape(layout.passes, op.k_tiles, -1), axis=2))
        return np.repeat(zero, layout.tiles_per_pass, axis=0)[: op.c_tiles]
