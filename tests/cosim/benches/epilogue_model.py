"""What the epilogue should do: random instructions, and every write that they cause, in order."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np

from vitrify.arch import access, formats, isa
from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import (
    ADDING_OUTPUTS,
    NARROW_OUTPUTS,
    WITH_PARAMETERS,
    Combine,
    Output,
    RowScale,
    Stationary,
    Stats,
)
from vitrify.cosim import bench
from vitrify.golden.machine import statistics
from vitrify.golden.memory import TokenMemory
from vitrify.golden.ops import requantise, routing, softmax
from vitrify.rtl import interfaces
from vitrify.rtl.array.thirds import LOWEST

STRIDE_WORDS = 6    # of a destination row: room for 24 columns and more at every depth
ROW_IDS = 24        # rows of a destination tensor


@dataclasses.dataclass
class Work:
    """One instruction with everything that the other units would give the epilogue."""

    op: isa.Instruction
    #: ``[rows, tiles * C]``, garbage in the columns that do not exist; repetitions side by side.
    acc: np.ndarray
    #: Per column, as in the weight stream.
    bias: np.ndarray
    multiplier: np.ndarray
    table: np.ndarray | None
    #: ``[repetitions, rows]``.
    sums: np.ndarray
    ids: np.ndarray
    columns: int
    #: Gate weight and first-expert flag of every row.
    gates: np.ndarray


    @property
    def tiles(self) -> int:
        """C tiles of all repetitions."""
        return self.op.c_tiles * (self.op.repeats + 1)

    def parts(self) -> list[Work]:
        """One for each repetition."""
        width = self.acc.shape[1] // (self.op.repeats + 1)
        return [
            dataclasses.replace(
                self, op=op, acc=self.acc[:, i * width : (i + 1) * width], sums=self.sums[i])
            for i, op in enumerate(access.repetitions(self.op))
        ]


@dataclasses.dataclass
class Row:
    """One row of one c tile: the writes that complete it, as ``(cell, ordinal)``."""

    cells: list[tuple[int, int]]
    stat: tuple[int, int] | None


class Expectation:
    """Runs instructions in order on the golden kernels and logs what every cell receives.

    ``cells[byte address]`` and ``stats[entry]`` are the values that arrive there, in order.
    """

    def __init__(self, arch: ArchConfig, tokens: TokenMemory) -> None:
        self.arch = arch
        self.tokens = tokens
        self.cells: dict[int, list[int]] = defaultdict(list)
        self.stats: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        self.rows: list[list[list[Row]]] = []
        self.tables = np.zeros((2, formats.TABLE_ENTRIES), np.int8)

    def execute(self, work: Work) -> None:
        if work.table is not None:
            self.tables[work.op.table_slot] = work.table
        self.rows.append([])
        for part in work.parts():
            self._execute(part)

    def _execute(self, work: Work) -> None:
        arch, op = self.arch, work.op
        columns = work.columns
        pre, multiplier, post = op.pre_shift, work.multiplier[:columns], op.post_shift
        post = formats.POST_SHIFTS[post]
        if op.row_scale:
            shift, factor = softmax.reciprocal(work.sums)
            pre, multiplier, post = shift[:, None], factor[:, None], formats.RECIPROCAL_SHIFT
        if op.gate:
            multiplier = routing.scale(multiplier, work.gates[:, 0])
        value = requantise.scale(
            work.acc[:, :columns], bias=work.bias[:columns], pre_shift=pre, multiplier=multiplier,
            post_shift=post, requant_bits=arch.requant_bits,
        )
        groups = -(-columns // arch.lanes)
        words = -(-groups * arch.lanes // arch.depth)
        address = op.dst_addr + work.ids[:, None] * op.dst_stride + np.arange(words)
        first = work.gates[:, 1:] if op.gate else 0
        source = address + first * (op.add_addr - op.dst_addr)
        if op.add_source:
            source = op.add_addr + np.arange(op.rows)[:, None] * op.add_stride + np.arange(words)
        narrow, largest = op.output in NARROW_OUTPUTS, op.combine == Combine.MAX
        old = None
        if op.output in ADDING_OUTPUTS:
            old = (self.tokens.read8 if narrow else self.tokens.read16)(source, columns)
        if narrow:
            table = self.tables[op.table_slot] if op.activation else None
            result = requantise.to_int8(value, table, old, largest=largest)
        else:
            result = requantise.to_int16(value, old, largest=largest)
        # A lane group is written as a whole.
        stored = np.zeros((op.rows, groups * arch.lanes), result.dtype)
        stored[:, :columns] = result
        if narrow:
            self.tokens.write8(address, stored)
        else:
            self.tokens.write16(address, stored)
        self._log(op, work, stored, self._statistics(op, result), address)

    def _statistics(self, op: isa.Instruction, result: np.ndarray) -> np.ndarray | None:
        if op.stats == Stats.NONE:
            return None
        entries = statistics(op, result)
        if op.stats == Stats.SUM:
            entries = np.array([sum_entry(total) for total in entries[:, 0]])
        return entries

    def _log(self, op, work, stored, statistics, address) -> None:
        arch, wide = self.arch, op.output not in NARROW_OUTPUTS
        width = arch.tile_width(op.nibbles)
        for tile in range(op.c_tiles):
            rows = []
            for r in range(op.rows):
                cells = []
                for column in range(tile * width, (tile + 1) * width):
                    if column >= stored.shape[1]:
                        break
                    where = address[r, column // arch.depth]
                    value = int(stored[r, column])
                    planes = self.tokens.pair(np.array([where])) if wide else ([where],)
                    for plane, word in enumerate(planes):
                        cell = int(word[0]) * arch.depth + column % arch.depth
                        cells.append((cell, len(self.cells[cell])))
                        self.cells[cell].append(value >> (8 * plane) & 0xFF)
                stat = None
                if statistics is not None and tile == op.c_tiles - 1:
                    entry = int(op.stat_dst + work.ids[r])
                    stat = (entry, len(self.stats[entry]))
                    self.stats[entry].append(tuple(int(v) for v in statistics[r]))
                rows.append(Row(cells, stat))
            self.rows[-1].append(rows)


def sum_entry(total: int) -> tuple[int, int, int]:
    """Mean, shift and mantissa of the entry whose bits are the sum."""
    low = int(total) & (1 << 18) - 1
    return low - (low >> 17 << 18), int(total) >> 18, 0


def sum_of(entry: int) -> int:
    """The sum that row scales find in an entry of the statistics memory."""
    source = np.random.default_rng(entry)
    return int(source.integers(1 << int(source.integers(8, 21))))


def sum_stat(entry: int) -> int:
    """The bits of that entry."""
    values = zip(interfaces.STAT.members, sum_entry(sum_of(entry)), strict=True)
    return bench.pack(interfaces.STAT, dict(values))


def param_words(arch: ArchConfig, work: Work, tile: int) -> list[dict[str, int]]:
    """Payloads (slot apart) that bring a c tile's parameters, as the weight stream holds them."""
    words, width = [], arch.tile_width(work.op.nibbles)
    for group in range(width // arch.lanes):
        at = tile * width + group * arch.lanes
        part = slice(at, at + arch.lanes)
        raw = (work.bias[part].astype("<i4").tobytes()
               + work.multiplier[part].astype("<u2").tobytes()).ljust(
                   arch.param_words * arch.depth, b"\xa5")
        for word in range(arch.param_words):
            chunk = raw[word * arch.depth : (word + 1) * arch.depth]
            words.append({"group": group, "word": word, "data": int.from_bytes(chunk, "little")})
    return words


def make(
    arch: ArchConfig, random: np.random.Generator, *, rows: int, c_tiles: int, c_last: int,
    output: Output, stationary: Stationary = Stationary.WEIGHTS, stats: Stats = Stats.NONE,
    row_scale: RowScale = RowScale.NONE, activation: bool = False, load_table: bool = False,
    table_slot: int = 0, listed: bool = False, extreme: bool = False, load_distance: int = 0,
    load_stream: bool = False, region: int = 0, gate: bool = False, nibbles: bool = False,
    combine: Combine = Combine.ADD, add_source: bool = False, repeats: int = 0,
) -> Work:
    """An instruction with random data that mostly stays inside the output format."""
    width = arch.tile_width(nibbles)
    shape = (rows, (repeats + 1) * c_tiles * width)
    columns = (c_tiles - 1) * width + c_last
    limit = (1 << (formats.HALF_ACC_BITS if nibbles else formats.ACC_BITS) - 1) - 1
    post, pre = int(random.integers(4)), int(random.integers(formats.MAX_PRE_SHIFT + 1))
    weights = stationary in WITH_PARAMETERS
    uniform = int(random.integers(1, 1 << 16))
    multiplier = random.integers(0, 1 << 16, shape[1]) if weights else np.full(shape[1], uniform)
    narrow = output in NARROW_OUTPUTS
    bits = 7.5 if narrow else 15.3
    scale = 2.0 ** (pre + formats.POST_SHIFTS[post] + bits) / max(1.0, float(np.mean(multiplier)))
    ids = random.permutation(ROW_IDS)[:rows] if listed else np.arange(rows)
    stat_src = int(random.integers(0, arch.stat_rows - 40))
    sums = random.integers(0, 1 << int(random.integers(8, 21)), (repeats + 1, rows))
    stat_src_step = int(random.integers(8))
    if row_scale == RowScale.STATISTIC:
        sums = np.array([[sum_of(stat_src + stat_src_step * again + int(i)) for i in ids]
                         for again in range(repeats + 1)])
    if row_scale:
        scale = 2.0**bits * float(np.mean(sums)) / 128
    scale = min(scale, limit / 3)
    acc = random.normal(0, max(scale / 2, 1.0), shape)
    if extreme:
        acc = random.choice([-limit - 1, limit, 0, 1, -1, limit // 2], shape)
    acc = np.clip(np.round(acc), -limit - 1, limit).astype(np.int64)
    amount = max(2, min(int(scale / 4), limit))
    bias = random.integers(-amount, amount, shape[1]) if weights else np.zeros(shape[1], np.int64)
    if extreme and weights:
        bias = random.choice([-limit - 1, limit, 0], shape[1])
        multiplier = random.choice([0, 1, 0xFFFF, 0x8000], shape[1])
    inv_dim, inv_shift = formats.inv_dim(columns)
    op = isa.make(
        isa.Opcode.MATMUL, rows=rows, c_tiles=c_tiles, c_last=c_last, stationary=stationary,
        output=output, dst_addr=region + (output == Output.ADD8 and region % 2) * arch.bank_words,
        dst_stride=STRIDE_WORDS + region % 3, dst_list=listed,
        pre_shift=pre, post_shift=post, multiplier=uniform, row_scale=row_scale,
        transform=isa.Transform.EXP2 if row_scale else isa.Transform.NONE,
        activation=activation, load_table=load_table, table_slot=table_slot, stats=stats,
        stat_dst=int(random.integers(0, arch.stat_rows - 40)), inv_dim=inv_dim,
        inv_shift=inv_shift, epsilon=int(random.choice([0, 1, 65535, 40])),
        epi_load_distance=load_distance, epi_load_stream=load_stream, gate=gate,
        # Bytes may lie in either bank of a pair.
        add_addr=(2 + narrow * int(random.integers(2))) * arch.bank_words + region,
        stat_src=stat_src, nibbles=nibbles,
    )
    add_stride = STRIDE_WORDS - 1 + int(random.integers(3))
    pattern = isa.make(
        isa.Opcode.PATTERN, combine=combine, add_source=add_source, add_stride=add_stride,
        repeats=repeats, dst_step=rows * op.dst_stride, stat_dst_step=rows,
        add_step=rows * add_stride * int(random.integers(2)), stat_src_step=stat_src_step,
    )
    op, _ = isa.attach(op, pattern)
    one = 1 << formats.GATE_FRAC
    gates = np.stack([
        random.choice([0, 1, one, one // 2, int(random.integers(one))], rows),
        random.integers(0, 2, rows),
    ], axis=1)
    table = random.integers(-127, 128, 256).astype(np.int8) if load_table else None
    return Work(op, acc, bias, multiplier, table, sums, ids, columns, gates)


def random_program(
    arch: ArchConfig, random: np.random.Generator, count: int
) -> list[Work]:
    """Instructions of every kind; each loads what it needs."""
    works: list[Work] = []
    slot, loaded = 0, set()
    for _ in range(count):
        output = Output(int(random.choice([0, 0, 1, 2, *([3, 3] if arch.addends else [])])))
        narrow, adds = output in NARROW_OUTPUTS, output in ADDING_OUTPUTS
        load = bool(narrow and random.random() < 0.3)
        if load:
            # The instruction before may still be using its slot.
            slot = 1 - slot
            loaded.add(slot)
        listed, gathers = bool(random.random() < 0.4), random.random() < 0.6
        stats = (Stats.MAX if narrow else Stats.NORM) if gathers else Stats.NONE
        if gathers and arch.row_sums and random.random() < 0.6:
            stats = Stats.SUM if narrow or random.random() < 0.5 else Stats.RMS
        scale = RowScale.NONE
        if random.random() < 0.25:
            scale = RowScale(int(random.integers(1, 2 + arch.row_sums)))
        gate = bool(arch.experts and listed and random.random() < 0.6)
        streamed = bool(adds and not listed and random.random() < 0.6)
        # Without old values, it means nothing.
        combine = Combine(int(arch.patterns and random.random() < 0.4))
        rows = int(random.choice([1, 1, 2, 3, 5, 8, 20]))
        stationary, repeats = Stationary(int(random.integers(4))), 0
        if arch.patterns and not (listed or streamed) and stationary not in WITH_PARAMETERS:
            repeats = int(random.integers(min(3, ROW_IDS // rows)))
        nibbles = bool(
            arch.sees_nibbles and stationary == Stationary.WEIGHTS and random.random() < 0.6)
        room = max(1, min(3, 6 * arch.depth // arch.tile_width(nibbles)))
        works.append(make(
            arch, random, rows=rows, repeats=repeats, nibbles=nibbles,
            c_tiles=int(random.integers(1, room + 1)),
            c_last=int(random.integers(1, arch.tile_width(nibbles) + 1)), output=output,
            stationary=stationary, stats=stats, listed=listed,
            row_scale=RowScale.NONE if gate else scale, gate=gate, load_table=load,
            combine=combine,
            add_source=bool(arch.patterns and adds and not gate and random.random() < 0.5),
            table_slot=slot,
            activation=bool(
                narrow and slot in loaded and not (adds and combine) and random.random() < 0.7),
            extreme=bool(random.random() < 0.15), load_distance=int(listed or streamed),
            load_stream=streamed, region=int(random.choice([0, 0, 7])),
        ))
    return works


def command(work: Work, seq: int, load_seq: int, list_base: int) -> dict[str, int]:
    """Fields of the epilogue's command."""
    values = dict(work.op.values)
    values |= {"seq": seq % 256, "load_seq": load_seq % 256, "dst_list_base": list_base}
    return values


def drain_rows(
    arch: ArchConfig, work: Work, random: np.random.Generator
) -> list[tuple[list[int], int]]:
    """Rows of every c tile, and how many are drained with it; those of a pass are with the first.
    """
    width, found = arch.tile_width(work.op.nibbles), []
    in_pairs = bool(work.op.nibbles) and arch.nibble_tiles > 1
    for c in range(work.tiles):
        other = work.acc[:, (c + 1) * width : (c + 2) * width]
        if c + 1 == work.tiles:
            other = random.integers(-9, 9, (work.op.rows, width))
        rows = [
            _drain_row(arch, work.acc[r, c * width : (c + 1) * width],
                       other[r] if in_pairs else None, random)
            for r in range(work.op.rows)
        ]
        found.append((rows, 2 if in_pairs and c + 1 < work.tiles else 1))
    return found


def _drain_row(
    arch: ArchConfig, acc: np.ndarray, second: np.ndarray | None, random: np.random.Generator
) -> int:
    """A drain row of a c tile as bits; of nibbles with the c tile of the same pass."""
    if arch.nibble_tiles > 1:
        if second is None:
            # Sums of bytes are divided in any way.
            reach = formats.HALF_ACC_BITS - 1 - formats.NIBBLE_SHIFT
            low = acc % (1 << formats.NIBBLE_SHIFT)
            low += random.integers(-(1 << reach), 1 << reach, len(acc)) << formats.NIBBLE_SHIFT
            second = acc - low >> formats.NIBBLE_SHIFT
            acc = low
        acc = np.stack([acc, second], axis=1).reshape(-1)
    if arch.nibble_thirds:
        low, odd, last = acc[: arch.width : 2], acc[1 : arch.width : 2], acc[arch.width :]
        middle, high = odd, last
        if not len(last):
            # The low column of bytes is divided in any way.
            middle, high = random.integers(-9, 9, len(low)), odd
            low = low - (middle << LOWEST)
        acc = np.stack([low, high, middle], axis=1).reshape(-1)
    return bench.vector(acc.tolist(), arch.sum_bits)
