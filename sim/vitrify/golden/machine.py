"""The golden machine: executes a program image.  It defines what every instruction means.

Plain and sequential: an instruction is complete before the next begins, so the waiting fields
(distances) have no effect here.  A program whose result depends on them is wrong, and differs
from the core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import access, formats, isa, memmap, support, trellis
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Instruction, Opcode, Region, RowScale, Stationary, Stats, Transform
from vitrify.arch.modes import ADDING_OUTPUTS, NARROW_OUTPUTS, Combine

from .experts import Experts
from .memory import Index, Planes, TokenMemory, UInt8
from .numerics import AnyInt, IntArray
from .ops import layernorm, requantise, softmax
from .ops.matmul import product
from .places import Found, Part, Places, Stream

#: Called after each MATMUL with its number in the program, the instruction and what it wrote
#: (int8 or int16 ``[rows, columns]``).  With ``expert_rows``, rows and lists of the instruction
#: are those of the expert's queue; without any rows it was skipped.  Of a repeated MATMUL, the
#: rows of all repetitions lie one behind the other.
Observer = Callable[[int, Instruction, npt.NDArray[Any]], None]


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
        # Of the last image, decoded: instructions, weight streams, and what no job changes.
        self._image: UInt8 = np.zeros(0, np.uint8)
        self._code: dict[int, Instruction] = {}
        self._streams: dict[tuple[Any, ...], Stream] = {}
        self._parts: dict[int, list[Part]] = {}

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
                parts = [self._matmul(part) for part in self._parts_of(i, op)]
                written = np.concatenate(parts) if len(parts) > 1 else parts[0]
                if observe is not None:
                    observe(i, op, written)
            elif op.opcode is Opcode.LOAD_INDEX:
                self._load_index(op, regions[Region(op.region)])
            elif op.opcode is Opcode.ROUTE:
                self.experts.route(op, self.tokens)
            elif op.opcode is not Opcode.PATTERN:
                self._move(op, regions[Region(op.region)])
        raise ProgramError(f"the program ends after {instruction_count} instructions without END")

    def twin(self, image: UInt8) -> Machine:
        """Another core, with memories of its own; what is decoded of ``image`` is shared."""
        self._read(image)
        other = Machine(self.arch)
        other._image, other._code = self._image, self._code
        other._streams, other._parts = self._streams, self._parts
        return other

    def _read(self, image: UInt8) -> None:
        if image is not self._image:
            self._image, self._code, self._streams, self._parts = image, {}, {}, {}

    def _instruction(self, number: int) -> Instruction:
        if number not in self._code:
            at = number * isa.INSTRUCTION_BYTES
            op = isa.unpack(self._image[at : at + isa.INSTRUCTION_BYTES].tobytes())
            op, _ = isa.attach(op, self._pattern(number))
            support.check(self.arch, op)
            self._code[number] = op
        return self._code[number]

    def _pattern(self, number: int) -> Instruction | None:
        """The PATTERN that an instruction finds; those before it are decoded."""
        for before in range(number - 1, -1, -1):
            if self._code[before].opcode is Opcode.PATTERN:
                return self._code[before]
            if self._code[before].opcode is Opcode.MATMUL:
                break
        return None

    def _parts_of(self, number: int, op: Instruction) -> list[Part]:
        """The MATMULs that ``op`` stands for, which is instruction ``number``, resolved."""
        resolved = op is not self._code[number]
        if resolved or number not in self._parts:
            parts = [
                Part.of(self.arch, self.tokens, one, self._stream(one))
                for one in access.repetitions(op)
            ]
            if resolved:
                return parts
            self._parts[number] = parts
        return self._parts[number]

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
        for plane, words in enumerate(self.tokens.planes(address, wide=bool(op.wide))):
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
    def _matmul(self, part: Part) -> npt.NDArray[Any]:
        arch, op, columns, stream = self.arch, part.op, part.columns, part.stream
        if op.rows == 0:
            return np.zeros((0, columns), np.int8)
        if stream.gain is not None:
            self.gains[op.gain_slot, : len(stream.gain)] = stream.gain
        if stream.table is not None:
            self.tables[op.table_slot] = stream.table
        acc, total = self._product(part, self._stationary(part))

        result_at = part.result.words(self.index)
        ids = part.result.row_ids(self.index)[:, 0]
        pre: IntArray | int = op.pre_shift
        own = op.multiplier if stream.multiplier is None else stream.multiplier
        multiplier: Any = self.experts.scale(op, own)
        post = formats.POST_SHIFTS[op.post_shift]
        if op.row_scale:
            if op.row_scale == RowScale.STATISTIC:
                total = self._stat(op.stat_src + ids)[0]
            shift, factor = softmax.reciprocal(total)
            pre, multiplier, post = shift[:, None], factor[:, None], formats.RECIPROCAL_SHIFT
        narrow = op.output in NARROW_OUTPUTS
        old = self._old_values(part, result_at) if op.output in ADDING_OUTPUTS else None
        result = requantise.finish(
            acc, bias=stream.bias, pre_shift=pre, multiplier=multiplier, post_shift=post,
            requant_bits=arch.requant_bits, narrow=narrow, old=old,
            table=self.tables[op.table_slot] if narrow and op.activation else None,
            largest=op.combine == Combine.MAX,
        )
        self.tokens.store(result_at.planes, result)
        self._gather(op, ids, result)
        return result

    def _old_values(self, part: Part, result_at: Found) -> npt.NDArray[Any]:
        """What the result, which goes to ``result_at``, is combined with."""
        op, planes = part.op, result_at.planes
        if part.old is not None:
            planes = part.old.words(self.index).planes
        elif op.gate:
            rows = part.result.access
            address = self.experts.add_addresses(op, rows.words(0, self.index))
            planes = self.tokens.planes(address, wide=rows.wide)
        return self.tokens.load(planes, part.columns)

    def _product(self, part: Part, tiles: npt.NDArray[np.int8]) -> tuple[IntArray, IntArray]:
        """Sums ``[rows, columns]``; for row_scale, the sum of each row's bytes in c tile 0."""
        op, first = part.op, self._operand(part, 0)
        total = np.zeros(0, np.int64)
        if op.row_scale == RowScale.OPERAND:
            total = first.astype(np.uint8).sum(axis=1, dtype=np.int64)
        if not op.k_step:
            return product(first, tiles), total
        parts, size = [], op.c_group * self.arch.width
        for at in range(0, len(tiles), size):
            operand = self._operand(part, at // self.arch.width) if at else first
            parts.append(product(operand, tiles[at : at + size]))
        return np.concatenate(parts, axis=1), total

    def _operand(self, part: Part, c: int) -> AnyInt:
        """What streams past the tiles of c tile ``c``: ``[rows, depth]``."""
        op, rows = part.op, part.streamed
        found = rows.words(self.index, c)
        value = self._transformed(op, rows, found.planes, c)
        if found.read is not None:
            value[:, ~access.valid_bytes(self.arch, op)] = 0
            value.reshape(*found.read.shape, self.arch.depth)[~found.read] = 0
        return value[:, : part.depth]

    def _transformed(self, op: Instruction, rows: Places, planes: Planes, c: int) -> AnyInt:
        size = planes[0].shape[1] * self.arch.depth
        if op.transform == Transform.NONE:
            return self.tokens.load(planes, size)
        if op.transform in (Transform.NORM, Transform.EXP2):
            # A tap has the statistics of its own pixel.
            return self._by_statistics(op, rows, planes, c)
        if op.transform == Transform.PRODUCT:
            low, high = (self.tokens.read(plane, size) for plane in planes)
            return layernorm.product(low, high, op.norm_shift, op.norm_mantissa)
        mean, shift, mantissa = (
            np.full(op.rows, v, np.int64) for v in (0, op.norm_shift, op.norm_mantissa)
        )
        x = self.tokens.load(planes, size)
        return layernorm.apply(x, mean, shift, mantissa, self._gain(op, rows.access, c))

    def _by_statistics(self, op: Instruction, rows: Places, planes: Planes, c: int) -> AnyInt:
        parts, width = [], rows.access.width
        size = width * self.arch.depth
        gain = None if op.transform == Transform.EXP2 else self._gain(op, rows.access, c)
        for tap, ids in enumerate(np.maximum(rows.row_ids(self.index), 0).T):
            mean, shift, mantissa = self._stat(op.stat_src + ids)
            own = tuple(plane[:, tap * width : (tap + 1) * width] for plane in planes)
            x = self.tokens.load(own, size)
            parts.append(
                softmax.exp2(x, mean) if gain is None else layernorm.apply(
                    x, mean, shift, mantissa, gain[tap * size : (tap + 1) * size])
            )
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _gain(self, op: Instruction, rows: access.Access, c: int) -> UInt8:
        """Gains of what streams past c tile ``c``: those of the same words of every tap."""
        wanted, depth = rows.row_words(c), self.arch.depth
        first, end = int(wanted[0]) * depth, (int(wanted[-1]) + 1) * depth
        gains = self.gains[op.gain_slot, first:end]
        if len(gains) < end - first:
            raise ProgramError(f"there are no gains for word {wanted[-1]} of a row")
        taps = op.k_tiles // rows.width
        return np.tile(gains, taps) if taps > 1 else gains

    def _stat(self, entries: Index) -> tuple[IntArray, IntArray, IntArray]:
        if entries.max() >= len(self.stats):
            raise ProgramError(f"statistics entry {int(entries.max())} does not exist")
        mean, shift, mantissa = self.stats[entries].T
        return mean, shift, mantissa

    def _stationary(self, part: Part) -> npt.NDArray[np.int8]:
        op, depth, columns = part.op, part.depth, part.columns
        if part.stream.weight is not None:
            return part.stream.weight
        assert part.stationary is not None
        planes = part.stationary.words(self.index).planes
        if op.stationary == Stationary.STORED:
            tiles = np.stack([self.tokens.bytes[plane[0]] for plane in planes], axis=1)
            if op.nibbles:
                order = memmap.stored_thirds(self.arch.width)
                words = tiles.reshape(-1, len(order), self.arch.depth)[:, np.argsort(order)]
                tiles = halves(words, 1)
            return in_columns(self.arch, op, tiles)[:columns, :depth]
        if op.stationary == Stationary.ROWS:
            return self.tokens.load(planes, depth)
        return self.tokens.load(planes, columns).T

    def _gather(self, op: Instruction, ids: Index, result: npt.NDArray[Any]) -> None:
        if op.stats == Stats.NONE:
            return
        entries = op.stat_dst + ids
        if entries.max() >= len(self.stats):
            raise ProgramError(f"statistics entry {int(entries.max())} does not exist")
        self.stats[entries] = statistics(op, result)

    # Weight stream -----------------------------------------------------------------------
    def _stream(self, op: Instruction) -> Stream:
        """Decode (once for all jobs of an image) the stream of ``op``."""
        depth, columns = access.shape(self.arch, op)
        layout = memmap.stream_layout(self.arch, op)
        if layout.total == 0:
            return Stream(None, None, None, 0, None)
        at, k = op.stream_offset, self.arch.depth
        data = self._image[at : at + layout.total * k]
        if len(data) < layout.total * k or layout.total != op.stream_words:
            raise ProgramError(
                f"weight stream at {at} has {op.stream_words} words where {layout.total} "
                f"are needed inside an image of {len(self._image)} bytes"
            )
        # Equal streams are in the image once, whatever MATMULs have them.
        key = at, layout, depth, columns
        if key not in self._streams:
            self._streams[key] = self._decode(op, layout, data.reshape(-1, k), depth, columns)
        return self._streams[key]

    def _decode(
        self, op: Instruction, layout: memmap.StreamLayout, data: UInt8, depth: int, columns: int
    ) -> Stream:
        arch = self.arch
        gain = data[: layout.gain].reshape(-1) if layout.gain else None
        at = layout.gain
        table = data[at : at + layout.table].reshape(-1).view(np.int8) if layout.table else None
        if not layout.params:
            return Stream(gain, table, None, 0, None)
        parts = list(layout.divided())
        params = np.concatenate([data[params] for params, _ in parts])
        lanes = arch.lanes
        params = params.reshape(op.c_tiles * arch.tile_width(op.nibbles) // lanes, -1)
        bias = params[:, : 4 * lanes].copy().view("<i4").reshape(-1)[:columns]
        multiplier = params[:, 4 * lanes : 6 * lanes].copy().view("<u2").reshape(-1)[:columns]
        weight = None
        if layout.tile:
            words = np.concatenate([data[tiles] for _, tiles in parts])
            if op.nibbles:
                words = halves(words.reshape(layout.passes, -1, arch.depth), layout.tiles_per_pass)
                if arch.trellis_codes:
                    words = trellis.decode(words.reshape(-1, arch.width, arch.depth)).view(np.uint8)
            # In the order that BLAS likes best for the second factor.
            weight = np.ascontiguousarray(in_columns(arch, op, words)[:columns, :depth].T).T
        return Stream(gain, table, weight, bias, multiplier)


def statistics(op: Instruction, result: npt.NDArray[Any]) -> IntArray:
    """Entries ``[rows, 3]`` of the statistics memory that the written rows ``result`` make."""
    entries = np.zeros((len(result), 3), np.int64)
    if op.stats == Stats.MAX:
        entries[:, 0] = softmax.row_max(result)
    elif op.stats == Stats.SUM:
        entries[:, 0] = softmax.row_sum(result.sum(axis=1, dtype=np.int64))
    else:
        entries.T[:] = layernorm.statistics(
            result, inv_dim=op.inv_dim, inv_shift=op.inv_shift, epsilon=op.epsilon,
            centred=op.stats == Stats.NORM,
        )
    return entries


def halves(words: UInt8, tiles: int) -> UInt8:
    """Words ``[passes, n, K]`` of nibbles as bytes: a column behind its neighbour's word by word,
    or, if a pass has two c ``tiles``, all words of the first before those of the second.
    """
    signed = words.view(np.int8)
    return np.stack([signed << 4 >> 4, signed >> 4], axis=3 - tiles).view(np.uint8)


def in_columns(arch: ArchConfig, op: Instruction, tiles: UInt8) -> npt.NDArray[np.int8]:
    """Weights ``[columns, depth]`` of the words of all tiles, c tile by c tile.

    One c tile more, which a pass has left over, is left out.
    """
    width = arch.tile_width(op.nibbles)
    tiles = tiles.reshape(-1, op.k_tiles, width, arch.depth)[: op.c_tiles]
    return tiles.transpose(0, 2, 1, 3).reshape(op.c_tiles * width, -1).view(np.int8)
