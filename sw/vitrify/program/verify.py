"""Instructions against their core: none leaves its memories, its regions or the image.

What only a run knows (rows in lists, queues of experts) is checked by whoever runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vitrify.arch import access, formats, memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Instruction, Opcode, Region
from vitrify.arch.modes import NORM_STATS, RowScale, Stats, Transform

from .program import Program

#: A part of a memory: what it is, the first element behind it, and how many there are.
Use = tuple[str, int, int]
#: Waiting fields, and what their distances count.
_WAITS = {
    "dep_distance": Opcode.MATMUL, "st_distance": Opcode.MATMUL, "wait_distance": Opcode.MATMUL,
    "load_distance": Opcode.LOAD, "epi_load_distance": Opcode.LOAD,
}


def verify(program: Program) -> None:
    """Check every instruction.

    Raises
    ------
    ProgramError
        For an instruction that is none, or that reaches beyond something; for a program without
        its END, or with other layers than its instructions.
    """
    seen: list[int] = []
    routed: Instruction | None = None
    room, loads = 0, 0
    last = program.instruction_count - 1
    for number, op in enumerate(program.instructions()):
        where = f"instruction {number} ({op.opcode.name})"
        if (op.opcode is Opcode.END) != (number == last):
            raise ProgramError(f"{where}: a program has one END, its last instruction")
        if op.opcode is Opcode.ROUTE:
            if not op.joins:
                routed, room = op, op.room
            elif routed is None or op.experts > routed.experts or op.rows > room:
                raise ProgramError(f"{where} joins queues that have no room for its {op.rows} rows")
            else:
                room -= op.rows
        if op.values.get("expert_rows") and routed is None:
            raise ProgramError(f"{where} works on rows of experts, and no ROUTE comes before it")
        for field, before in _WAITS.items():
            earlier = len(seen) if before is Opcode.MATMUL else loads
            if op.values.get(field, 0) > earlier:
                raise ProgramError(
                    f"{where}: {field} is {op.values[field]}, and only {earlier} such instructions "
                    f"come before it"
                )
        if op.opcode is Opcode.MATMUL:
            seen.append(number)
        loads += op.opcode in (Opcode.LOAD, Opcode.LOAD_INDEX)
        for what, end, size in _uses(program, op, where):
            if end > size:
                raise ProgramError(f"{where} needs {end} {what}, and there are {size}")
    found = [layer.instruction for layer in program.layers]
    if found != seen:
        raise ProgramError(
            f"its layers belong to {len(found)} instructions, and it has {len(seen)} MATMULs"
        )


def _uses(program: Program, op: Instruction, where: str) -> Iterator[Use]:
    arch = program.arch
    match op.opcode:
        case Opcode.MATMUL:
            # Steps lead upwards: the last repetition goes furthest.
            yield from _matmul(program, access.repetitions(op)[-1], where)
        case Opcode.ROUTE:
            yield "experts", op.experts, arch.experts
            yield "choices", op.choices, op.experts
            if not op.joins:
                size = memmap.queue_entries(op.rows, op.choices, op.experts, op.room)
                yield "row indices", op.base + size, arch.index_entries
            words = memmap.words(arch, op.experts)
            yield _tokens(arch, op.src_addr, op.rows, op.src_stride, words, wide=True)
        case Opcode.LOAD_INDEX:
            yield "row indices", op.base + op.count, arch.index_entries
            yield _region(program, op, op.count * formats.INDEX_BYTES, where)
        case Opcode.LOAD | Opcode.STORE:
            if op.opcode is Opcode.STORE and op.region != Region.OUTPUT:
                raise ProgramError(f"{where} writes to something else than the output")
            size = op.rows * op.words * arch.depth * (1 + op.wide)
            yield _region(program, op, size, where)
            yield _tokens(arch, op.addr, op.rows, op.stride, op.words, wide=bool(op.wide))
        case _:
            pass


def _matmul(program: Program, op: Instruction, where: str) -> Iterator[Use]:
    arch = program.arch
    depth, _ = access.shape(arch, op)
    yield "rows of accumulators", op.rows, arch.max_rows
    yield "elements of a word", op.k_last, arch.depth
    yield "columns of a tile", op.c_last, arch.tile_width(op.nibbles)
    yield "elements of a dot product", depth, formats.MAX_DEPTH
    if op.expert_rows or op.gate:
        yield "experts", max(1, (op.expert + 1) * op.expert_rows), arch.experts
    listed = op.expert_rows
    streamed = access.streamed(op)
    if op.src_list and not listed:
        yield "row indices", _index_end(streamed), arch.index_entries
    # Rows in lists are known when it runs; one row of them must fit in any case.
    rows = 1 if op.src_list or listed else None
    yield _words(arch, streamed, op.c_tiles, rows)
    if op.transform in (Transform.NORM, Transform.EXP2):
        yield "row statistics", op.stat_src + (rows or _last_row(streamed) + 1), arch.stat_rows
    yield from _stationary(program, op, where)
    if (op.dst_list or op.gate) and not listed:
        yield "row indices", op.dst_list_base + op.rows, arch.index_entries
    rows = 1 if op.dst_list or listed else op.rows
    yield _words(arch, access.result(arch, op), 1, rows)
    old = access.old_values(arch, op)
    if old is not None:
        yield _words(arch, old, 1, None if op.add_source else rows)
    if op.row_scale == RowScale.STATISTIC:
        yield "row statistics", op.stat_src + rows, arch.stat_rows
    if op.stats in NORM_STATS and op.inv_shift <= 2 * formats.MEAN_FRAC:
        raise ProgramError(f"{where}: 1/D with a shift of {op.inv_shift} is more than 1")
    if op.stats != Stats.NONE:
        yield "row statistics", op.stat_dst + rows, arch.stat_rows


def _index_end(rows: access.Access) -> int:
    """Behind the last entry of the list that picks rows."""
    assert rows.list_base is not None
    return rows.list_base + _last_row(rows) + 1


def _last_row(rows: access.Access) -> int:
    """The last row that is streamed, before any list."""
    return max(0, int(replace(rows, list_base=None).row_ids().max()))


def _words(arch: ArchConfig, rows: access.Access, c_tiles: int, count: int | None) -> Use:
    """Words of the token memory up to the last one of (the first ``count``) rows."""
    return _memory(arch, rows.end(c_tiles, count), wide=rows.wide)


def _stationary(program: Program, op: Instruction, where: str) -> Iterator[Use]:
    arch = program.arch
    layout = memmap.stream_layout(arch, op)
    if layout.total != op.stream_words:
        raise ProgramError(
            f"{where} has a weight stream of {op.stream_words} words where {layout.total} are "
            f"needed"
        )
    if layout.total:
        offset = op.stream_offset + _task_offset(program, op)
        _aligned(arch, offset, where)
        yield "bytes of the image", offset + layout.total * arch.depth, len(program.image)
    rows = access.stationary(arch, op)
    if rows is not None:
        yield _words(arch, rows, 1, None)


def _tokens(
    arch: ArchConfig, address: int, rows: int, stride: int, words: int, *, wide: bool
) -> Use:
    """Words of the token memory; of pairs there are half as many."""
    return _memory(arch, address + (rows - 1) * stride + words, wide=wide)


def _memory(arch: ArchConfig, end: int, *, wide: bool) -> Use:
    name = "pair words of the token memory" if wide else "words of the token memory"
    return name, end, arch.token_words // 2 if wide else arch.token_words


def _region(program: Program, op: Instruction, size: int, where: str) -> Use:
    offset = op.offset + _task_offset(program, op)
    _aligned(program.arch, offset, where)
    sizes = {
        Region.PROGRAM: len(program.image), Region.INPUT: program.input_bytes,
        Region.OUTPUT: program.output_bytes,
    }
    region = Region(op.region)
    return f"bytes of the region {region.name}", offset + size, sizes[region]


def _aligned(arch: ArchConfig, offset: int, where: str) -> None:
    if offset % arch.depth:
        raise ProgramError(f"{where} begins at byte {offset}, no multiple of {arch.depth}")


def _task_offset(program: Program, op: Instruction) -> int:
    """What the highest task adds to the offset."""
    if not op.task_stride:
        return 0
    tasks = program.tasks
    count = tasks[op.task_source % len(tasks)].count if tasks else 1
    return (count - 1) * op.task_stride * program.arch.depth
