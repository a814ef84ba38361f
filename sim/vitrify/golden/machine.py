"""The golden machine: executes a program image.  It defines what every instruction means.

Plain and sequential: an instruction is complete before the next begins, so the waiting fields
(distances) have no effect here.  A program whose result depends on them is wrong, and differs
from the core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats, isa, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Instruction, Opcode, Output, Region, Stationary, Stats, Transform

from .experts import Experts
from .memory import Index, TokenMemory, UInt8
from .numerics import AnyInt, IntArray
from .ops import layernorm, requantise, softmax
from .ops.matmul import matmul

#: Called after each MATMUL with its number in the program, the instruction and what it wrote
#: (int8 or int16 ``[rows, columns]``).  With ``expert_rows``, rows and lists of the instruction
#: are those of the expert's queue; without any rows it was skipped.
Observer = Callable[[int, Instruction, npt.NDArray[Any]], None]


@dataclass
class _Stream:
    """Decoded weight stream of one MATMUL."""

    gain: UInt8 | None
    table: npt.NDArray[np.int8] | None
    weight: npt.NDArray[np.int8] | None
    bias: npt.NDArray[np.int32] | int
    multiplier: npt.NDArray[np.uint16] | int


class Machine:
    """One core with its memories.

    Parameters
    ----------
    arch : ArchConfig
        The core; the program must be made for it.
    """

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.tokens = TokenMemory(arch)
        self.index = np.zeros(arch.index_entries, np.int64)
        self.experts = Experts(arch, self.index)
        #: Row statistics: mean (or softmax maximum), shift, mantissa.
        self.stats = np.zeros((arch.stat_rows, 3), np.int64)
        self.gains = np.zeros((2, formats.MAX_DEPTH), np.uint8)
        self.tables = np.zeros((2, formats.TABLE_ENTRIES), np.int8)
        # Of the last image: instructions and weight streams, decoded.
        self._image: UInt8 = np.zeros(0, np.uint8)
        self._code: dict[int, Instruction] = {}
        self._streams: dict[int, _Stream] = {}

    def run(
        self,
        image: UInt8,
        instruction_count: int,
        input_bytes: UInt8,
        output_size: int,
        observe: Observer | None = None,
        task: int = 0,
    ) -> UInt8:
        """Run one job, whose register TASK is ``task``; returns the bytes of the output region.

        Raises
        ------
        ProgramError
            For an illegal instruction, an address outside a memory, or a missing END.
        """
        self._read(image)
        output = np.zeros(output_size, np.uint8)
        regions = {Region.PROGRAM: image, Region.INPUT: input_bytes, Region.OUTPUT: output}
        for i in range(instruction_count):
            op = self.experts.resolve(self._instruction(i), task)
            if op.opcode is Opcode.END:
                return output
            if op.opcode is Opcode.MATMUL:
                written = self._matmul(op)
                if observe is not None:
                    observe(i, op, written)
            elif op.opcode is Opcode.LOAD_INDEX:
                self._load_index(op, regions[Region(op.region)])
            elif op.opcode is Opcode.ROUTE:
                self.experts.route(op, self.tokens)
            else:
                self._move(op, regions[Region(op.region)])
        raise ProgramError(f"the program ends after {instruction_count} instructions without END")

    def twin(self, image: UInt8) -> Machine:
        """Another core, with memories of its own; what is decoded of ``image`` is shared."""
        self._read(image)
        other = Machine(self.arch)
        other._image, other._code, other._streams = self._image, self._code, self._streams
        return other

    def _read(self, image: UInt8) -> None:
        if image is not self._image:
            self._image, self._code, self._streams = image, {}, {}

    def _instruction(self, number: int) -> Instruction:
        if number not in self._code:
            at = number * isa.INSTRUCTION_BYTES
            self._code[number] = isa.unpack(
                self._image[at : at + isa.INSTRUCTION_BYTES].tobytes()
            )
        return self._code[number]

    # Moves -------------------------------------------------------------------------------
    def _move(self, op: Instruction, region: UInt8) -> None:
        depth = self.arch.depth
        planes = 2 if op.wide else 1
        count = op.rows * op.words * planes * depth
        if op.offset + count > len(region):
            raise ProgramError(
                f"{op.opcode.name} of {count} bytes at {op.offset} exceeds the "
                f"{Region(op.region).name} region of {len(region)} bytes"
            )
        block = region[op.offset : op.offset + count].reshape(op.words, op.rows, planes, depth)
        address = (op.addr + np.arange(op.words, dtype=np.int64)[:, None]
                   + np.arange(op.rows, dtype=np.int64) * op.stride)
        where = self.tokens.pair(address) if op.wide else (address,)
        for plane, words in enumerate(where):
            if op.opcode is Opcode.LOAD:
                self.tokens.bytes[words] = block[:, :, plane]
            else:
                block[:, :, plane] = self.tokens.bytes[words]

    def _load_index(self, op: Instruction, region: UInt8) -> None:
        end = op.offset + op.count * formats.INDEX_BYTES
        if op.base + op.count > len(self.index) or end > len(region):
            raise ProgramError(f"LOAD_INDEX of {op.count} entries at {op.base} does not fit")
        self.index[op.base : op.base + op.count] = region[op.offset : end].view("<u2")

    # Matrix product ----------------------------------------------------------------------
    def _matmul(self, op: Instruction) -> npt.NDArray[Any]:
        arch = self.arch
        depth = (op.k_tiles - 1) * arch.depth + op.k_last
        columns = (op.c_tiles - 1) * arch.width + op.c_last
        if op.rows == 0:
            return np.zeros((0, columns), np.int8)
        stream = self._stream(op, depth, columns)
        if stream.gain is not None:
            self.gains[op.gain_slot, : len(stream.gain)] = stream.gain
        if stream.table is not None:
            self.tables[op.table_slot] = stream.table
        operand = self._operand(op, depth)
        acc = matmul(operand, self._stationary(op, stream, depth, columns))

        pre: IntArray | int = op.pre_shift
        multiplier: Any = self.experts.scale(op, stream.multiplier)
        post = formats.POST_SHIFTS[op.post_shift]
        if op.row_scale:
            shift, factor = softmax.reciprocal(operand.sum(axis=1))
            pre, multiplier, post = shift[:, None], factor[:, None], formats.RECIPROCAL_SHIFT
        value = requantise.scale(
            acc, bias=stream.bias, pre_shift=pre, multiplier=multiplier, post_shift=post,
            requant_bits=arch.requant_bits,
        )
        ids = self._rows(op.rows, op.dst_list, op.dst_list_base)
        address = self._address(op.dst_addr, ids, op.dst_stride, memmap.words(arch, columns))
        if op.output == Output.INT8:
            result = requantise.to_int8(
                value, self.tables[op.table_slot] if op.activation else None
            )
            self.tokens.write8(address, result)
        else:
            old = None
            if op.output == Output.ADD16:
                old = self.tokens.read16(self.experts.add_addresses(op, address), columns)
            result = requantise.to_int16(value, old)
            self.tokens.write16(address, result)
        self._gather(op, ids, result)
        return result

    def _rows(self, rows: int, listed: int, base: int) -> Index:
        return self.index[base : base + rows] if listed else np.arange(rows, dtype=np.int64)

    @staticmethod
    def _address(base: int, ids: Index, stride: int, words: int) -> Index:
        return base + ids[:, None] * stride + np.arange(words, dtype=np.int64)

    def _operand(self, op: Instruction, depth: int) -> AnyInt:
        ids = self._rows(op.rows, op.src_list, op.src_list_base)
        address = self._address(op.src_addr, ids, op.src_stride, op.k_tiles)
        if op.transform == Transform.NONE:
            return self.tokens.read8(address, depth)
        if op.transform == Transform.EXP2:
            return softmax.exp2(self.tokens.read8(address, depth), self._stat(op.stat_src + ids)[0])
        if op.transform == Transform.NORM:
            mean, shift, mantissa = self._stat(op.stat_src + ids)
        else:
            mean, shift, mantissa = (
                np.full(op.rows, v, np.int64) for v in (0, op.norm_shift, op.norm_mantissa)
            )
        x = self.tokens.read16(address, depth)
        return layernorm.apply(x, mean, shift, mantissa, self.gains[op.gain_slot, :depth])

    def _stat(self, entries: Index) -> tuple[IntArray, IntArray, IntArray]:
        if entries.max() >= len(self.stats):
            raise ProgramError(f"statistics entry {int(entries.max())} does not exist")
        mean, shift, mantissa = self.stats[entries].T
        return mean, shift, mantissa

    def _stationary(
        self, op: Instruction, stream: _Stream, depth: int, columns: int
    ) -> npt.NDArray[np.int8]:
        if stream.weight is not None:
            return stream.weight
        if op.stationary == Stationary.STORED:
            return self._stored(op)[:columns, :depth]
        rows, channels = (columns, depth) if op.stationary == Stationary.ROWS else (depth, columns)
        address = self._address(
            op.st_addr, np.arange(rows, dtype=np.int64), op.st_stride,
            memmap.words(self.arch, channels),
        )
        block = self.tokens.read8(address, channels)
        return block if op.stationary == Stationary.ROWS else block.T

    def _stored(self, op: Instruction) -> npt.NDArray[np.int8]:
        """All columns of the tiles that a LOAD has put into the token memory."""
        arch = self.arch
        if not arch.stored_weights:
            raise ProgramError(f"arch {arch.name!r} keeps no weights in its token memory")
        words = op.c_tiles * op.k_tiles * arch.tile_pairs
        planes = self.tokens.pair(op.st_addr + np.arange(words, dtype=np.int64))
        tiles = np.stack([self.tokens.bytes[plane] for plane in planes], axis=1)
        return in_columns(arch, op, tiles)

    def _gather(self, op: Instruction, ids: Index, result: npt.NDArray[Any]) -> None:
        if op.stats == Stats.NONE:
            return
        entries = op.stat_dst + ids
        if entries.max() >= len(self.stats):
            raise ProgramError(f"statistics entry {int(entries.max())} does not exist")
        if op.stats == Stats.MAX:
            self.stats[entries] = np.stack([softmax.row_max(result), 0 * ids, 0 * ids], axis=1)
        else:
            wide = result.astype(np.int64)
            self.stats[entries] = np.stack(layernorm.finish(
                wide.sum(axis=1), (wide * wide).sum(axis=1),
                inv_dim=op.inv_dim, inv_shift=op.inv_shift, epsilon=op.epsilon,
            ), axis=1)

    # Weight stream -----------------------------------------------------------------------
    def _stream(self, op: Instruction, depth: int, columns: int) -> _Stream:
        """Decode (once for all jobs of an image) the stream of ``op``."""
        layout = memmap.stream_layout(self.arch, op)
        if layout.total == 0:
            return _Stream(None, None, None, 0, op.multiplier)
        key = op.stream_offset
        if key not in self._streams:
            k = self.arch.depth
            data = self._image[key : key + layout.total * k]
            if len(data) < layout.total * k or layout.total != op.stream_words:
                raise ProgramError(
                    f"weight stream at {key} has {op.stream_words} words where {layout.total} "
                    f"are needed inside an image of {len(self._image)} bytes"
                )
            self._streams[key] = self._decode(op, layout, data.reshape(-1, k), depth, columns)
        return self._streams[key]

    def _decode(
        self, op: Instruction, layout: memmap.StreamLayout, data: UInt8, depth: int, columns: int
    ) -> _Stream:
        arch = self.arch
        gain = data[: layout.gain].reshape(-1)[:depth] if layout.gain else None
        at = layout.gain
        table = data[at : at + layout.table].reshape(-1).view(np.int8) if layout.table else None
        if not layout.params:
            return _Stream(gain, table, None, 0, op.multiplier)
        tiles = data[at + layout.table :].reshape(op.c_tiles, layout.c_tile, arch.depth)
        params = tiles[:, : layout.params].reshape(op.c_tiles * arch.groups, -1)
        lanes = arch.lanes
        bias = params[:, : 4 * lanes].copy().view("<i4").reshape(-1)[:columns]
        multiplier = params[:, 4 * lanes : 6 * lanes].copy().view("<u2").reshape(-1)[:columns]
        weight = None
        if layout.tile:
            weight = np.ascontiguousarray(
                in_columns(arch, op, tiles[:, layout.params :])[:columns, :depth]
            )
        return _Stream(gain, table, weight, bias, multiplier)


def in_columns(arch: ArchConfig, op: Instruction, tiles: UInt8) -> npt.NDArray[np.int8]:
    """Weights ``[columns, depth]`` of the words of all tiles, c tile by c tile."""
    tiles = tiles.reshape(op.c_tiles, op.k_tiles, arch.width, arch.depth)
    return tiles.transpose(0, 2, 1, 3).reshape(op.c_tiles * arch.width, -1).view(np.int8)
