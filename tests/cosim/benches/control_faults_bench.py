"""Errors and resets, as a driver sees them."""

from __future__ import annotations

import random

import cocotb
import pytest
from bus_support import memory_read, memory_write, pauses
from control_model import (
    BASE_HIGH,
    PROGRAM,
    Expectation,
    pack,
    random_instruction,
    random_program,
    start,
)

from vitrify.arch import csr, isa, limits, support
from vitrify.arch.csr import ErrorCode
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import Opcode
from vitrify.cosim import bench


async def works(world):
    """A small program runs as if nothing had happened before."""
    ops = random_program(world.arch, 10)
    expected = Expectation(world)
    await world.program(pack(ops))
    expected.run(ops, 0x1000, 0x2000)
    await world.job(0x1000, 0x2000)
    await world.until("STATUS", "busy", 0)
    assert await world.read("JOBS_DONE") == 1
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    expected.check()


def flip(word):
    """An instruction with a wrong bit."""
    bit = random.randrange(8 * len(word))
    return (int.from_bytes(word, "little") ^ 1 << bit).to_bytes(len(word), "little")


@cocotb.test()
async def illegal_programs(dut):
    """Unknown opcodes, damaged instructions, programs without END stop the core at their index."""
    world = await start(dut)
    ops = random_program(world.arch, 7)
    cases = [([*pack(ops)[:5], bytes(64), *pack([])], None, 5),
             ([*pack(ops)[:3], b"\x07" + bytes(63), *pack([])], None, 3),
             *(([*pack(ops)[:i], flip(pack(ops)[i]), *pack([])], None, i) for i in range(8)),
             (pack(ops)[:-1], None, 7), (pack(ops), 4, 4), (pack(ops), 0, 0)]
    await world.write("IRQ_ENABLE", 2)
    for words, count, index in cases:
        await world.program(words, count)
        await world.job(0, 0)
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == ErrorCode.ILLEGAL_INSTRUCTION
        assert await world.wide("ERROR_INFO") == index
        assert await world.field("STATUS", "busy") == 0
        assert await world.read("IRQ_STATUS") == 2
        assert dut.irq.value == 1
        await bench.cycles(dut, 300)
        assert await world.read("JOBS_DONE") == 0
        await world.reset()
        assert dut.irq.value == 0
        await works(world)
        await world.reset()


@cocotb.test()
async def illegal_fields(dut):
    """Every field with a limit, just beyond it, with a right checksum; golden refuses the same."""
    world = await start(dut)
    cases = []
    for opcode, form in isa.FORMATS.items():
        for name, (low, high) in limits.limits(world.arch, opcode).items():
            bits = form.layout[name][1]
            least = 0 if low >= 0 else -(1 << bits - 1)
            cases += [(opcode, name, value)
                      for value in {low - 1, high + 1, least, least + (1 << bits) - 1}
                      if least <= value < least + (1 << bits) and not low <= value <= high]
    assert len({name for _, name, _ in cases}) > 15
    cases = [(opcode, {name: value}) for opcode, name, value in cases]
    cases += [(Opcode.ROUTE, {"experts": 2, "choices": 3})]
    for opcode, values in cases:
        plain = random_instruction(world.arch, opcode)
        if opcode is Opcode.MATMUL and random.random() < 0.5:
            plain = isa.make(opcode, **plain.values | {"expert_rows": 1, "expert": 0})
        await refused(world, [isa.Instruction(opcode, {**plain.values, **values})])
    await works(world)


async def refused(world, bad):
    """The last instruction of ``bad`` is illegal, to golden as well, whatever comes before it."""
    good, pattern = random_program(world.arch, random.randint(0, 2)), None
    for op in good:
        pattern = isa.attach(op, pattern)[1]
    if pattern:
        good.append(random_instruction(world.arch, Opcode.MATMUL, pattern))
    good += bad[:-1]
    with pytest.raises(ProgramError):
        support.check(world.arch, isa.attach(bad[-1], bad[0] if bad[1:] else None)[0])
    await world.program([*map(isa.pack, good), isa.pack(bad[-1]), *pack([])])
    await world.job(0, 0)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.ILLEGAL_INSTRUCTION, [*map(str, bad)]
    assert await world.wide("ERROR_INFO") == len(good), [*map(str, bad)]
    assert await world.read("DISPATCHED") == len(good)
    await world.reset()


@cocotb.test()
async def contradictions(dut):
    """Legal fields that must not be together, of a MATMUL and the PATTERN before it."""
    world = await start(dut)
    arch = world.arch
    cases = [
        {name: random.choice(values or (1, 2, 3))
         for name, values in condition.items()} for condition in support.forbidden(arch)
    ]
    assert len(cases) > 10
    most = arch.max_dim_words
    cases += [
        {"load_gain": 1, "k_tiles": most + 1}, {"load_gain": 1, "gain_words": most + 1},
        {"tapped": 1, "taps_y": 3, "taps_x": 5, "tap_k": 7, "k_tiles": 104},
        {"tapped": 1, "taps_y": 8, "taps_x": 8, "tap_k": 1024, "k_tiles": 1024},
    ]
    for case in cases:
        own, more = (
            {name: min(case[name], most) for name, (_, most) in limits.limits(arch, op).items()
             if name in case} for op in (Opcode.MATMUL, Opcode.PATTERN)
        )
        matmul = isa.make(Opcode.MATMUL, **own)
        await refused(world, [*([isa.make(Opcode.PATTERN, **more)] if more else []), matmul])
    # Just within.
    for pattern, op in (({}, {"load_gain": 1, "k_tiles": most}),
                        ({"gain_words": most}, {"load_gain": 1, "k_tiles": most + 1}),
                        ({"gain_words": most + 1}, {"k_tiles": most + 1}),
                        ({"tapped": 1, "taps_y": 3, "taps_x": 5, "tap_k": 7}, {"k_tiles": 105}),
                        ({"taps_y": 8, "taps_x": 8, "tap_k": 16}, {"k_tiles": 3})):
        ops = [isa.make(Opcode.PATTERN, **pattern), isa.make(Opcode.MATMUL, **op)]
        expected = Expectation(world)
        await world.program(pack(ops))
        expected.run(ops, 0x1000, 0x2000)
        await world.job(0x1000, 0x2000)
        await world.until("STATUS", "busy", 0)
        assert await world.read("ERROR_CODE") == ErrorCode.NONE, [*map(str, ops)]
        expected.check()
        await world.reset()
    await works(world)


@cocotb.test()
async def misaligned(dut):
    """An address that is no multiple of a page is an error that names its register."""
    world = await start(dut)
    await world.program(pack([]))
    for name in ("PROGRAM_BASE", "INPUT_BASE", "OUTPUT_BASE", "READ_BASE", "READ_LIMIT",
                 "WRITE_BASE", "WRITE_LIMIT"):
        register = f"{name}_LO"
        before = await world.read(register)
        for bit in (0, random.randint(1, 10), 11):
            await world.write(register, before | 1 << bit)
            await world.write("JOB_PUSH", 1)
            await world.until("STATUS", "error", 1)
            assert await world.read("ERROR_CODE") == ErrorCode.MISALIGNED
            assert await world.wide("ERROR_INFO") == csr.BY_NAME[register].offset
            await world.reset()
            assert await world.field("STATUS", "space") == csr.QUEUE_DEPTH
        await world.write(register, before)
    await works(world)


@cocotb.test()
async def time_limit(dut):
    """A job that takes too long is an error with its instruction; where it stands can be read."""
    world = await start(dut)
    unit = bench.option("limit_cycles")
    matmul, load = (random_instruction(world.arch, op) for op in (Opcode.MATMUL, Opcode.LOAD))
    matmul = isa.make(Opcode.MATMUL, **matmul.values | {"expert_rows": 0, "stream_words": 0})
    for name, finished in (("epilogue", (0, 3)), ("loads", (2, 0))):
        await world.program(pack([matmul, load, load, matmul, load]))
        await world.write("CYCLE_LIMIT", 8)
        world.frozen = {name}
        await world.control("clear_counters")
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == ErrorCode.TIMEOUT
        assert await world.wide("ERROR_INFO") == 5
        assert 8 * unit <= await world.read("CYCLES_LO") < 8 * unit + 20
        assert await world.field("PROGRESS", "matmuls") == finished[0]
        assert await world.field("PROGRESS", "loads") == finished[1]
        world.frozen = set()
        await world.reset()
        # In time, again and again: every job has the whole limit.
        await world.write("CYCLE_LIMIT", 20)
        await world.program(pack([matmul, load]))
        for done in range(1, 30):
            await world.job(0, 0)
            await world.until("STATUS", "busy", 0)
            assert await world.read("JOBS_DONE") == done
        assert await world.read("CYCLES_LO") > 20 * unit
        await world.program(pack([matmul]))
        world.frozen = {name}
        await world.write("CYCLE_LIMIT", 0)
        await world.job(0, 0)
        await bench.cycles(dut, 20 * unit)
        assert await world.read("ERROR_CODE") == ErrorCode.NONE
        world.frozen = set()
        await world.reset()


@cocotb.test()
async def dead_memory(dut):
    """A memory that stops answering: the reset ends, offers stand, and a later one may succeed."""
    world = await start(dut)
    k = world.arch.depth
    channels = {
        "ar": world.slave.read_if.ar_channel, "r": world.slave.read_if.r_channel,
        "aw": world.slave.write_if.aw_channel, "w": world.slave.write_if.w_channel,
        "b": world.slave.write_if.b_channel,
    }
    for dead in (("ar",), ("r",), ("aw",), ("w",), ("b",), tuple(channels)):
        task = None
        await world.program(pack(random_program(world.arch, 20)))
        for name in dead:
            channels[name].set_pause_generator(pauses(1))
        await world.job(0, 0)
        if not {"aw", "w", "b"}.isdisjoint(dead):
            task = cocotb.start_soon(memory_write(dut, "store", 0x800, bytes(20 * k), k))
        await bench.cycles(dut, 300)
        await world.control("reset")
        if task:
            task.cancel()
        dut.store__request__valid.value = dut.store__data__valid.value = 0
        await world.until("STATUS", "busy", 0)
        assert await world.field("STATUS", "bus_lost") == 1, dead
        assert await world.field("STATUS", "error") == 1
        assert await world.read("ERROR_CODE") == ErrorCode.BUS_LOST
        # Nothing new begins, not even with a new job.
        begun = len(world.reads)
        await world.write("JOB_PUSH", 1)
        await bench.cycles(dut, 200)
        assert len(world.reads) == begun
        assert await world.field("STATUS", "busy") == 0
        await world.control("reset")
        await world.until("STATUS", "busy", 0)
        assert await world.field("STATUS", "bus_lost") == 1
        # The memory comes back (the bus's monitors saw no offer withdrawn).
        for name in dead:
            channels[name].clear_pause_generator()
            channels[name].pause = False
        await world.reset()
        assert await world.field("STATUS", "bus_lost") == 0
        await works(world)
        await world.reset()


@cocotb.test()
async def bus_errors(dut):
    """SLVERR stops the core with the burst's address; a reset heals it."""
    world = await start(dut)
    k = world.arch.depth
    op = isa.make(Opcode.MATMUL, stream_offset=0x1000, stream_words=1024 // k)
    for hole, code, address in (
        (PROGRAM, ErrorCode.BUS_READ, PROGRAM),
        (PROGRAM + 0x1200, ErrorCode.BUS_READ, PROGRAM + 0x1200),
    ):
        await world.program(pack([op]))
        world.memory.holes = [range(hole, hole + 8)]
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == code
        assert await world.wide("ERROR_INFO") == BASE_HIGH << 32 | address
        world.memory.holes = []
        await world.reset()
        await works(world)
        await world.reset()
    world.memory.holes = [range(0x800, 0x808)]
    await memory_write(dut, "store", 0x800, bytes(k), k)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.BUS_WRITE
    assert await world.wide("ERROR_INFO") == 0x800
    world.memory.holes = []
    await world.reset()
    await works(world)


@cocotb.test()
async def windows(dut):
    """A burst outside the windows stops the core with its address; a reset heals it."""
    world = await start(dut)
    k = world.arch.depth
    base = BASE_HIGH << 32 | PROGRAM
    op = isa.make(Opcode.MATMUL, stream_offset=0x1000, stream_words=4)
    for first, behind, address in (
        (base + 0x1000, base + 0x3000, base),           # the instructions
        (base, base + 0x1000, base + 0x1000),           # the weights
        (PROGRAM, PROGRAM + 0x3000, base),              # right but for the upper bits
    ):
        await world.program(pack([op]))
        await world.write_wide("READ_BASE", first)
        await world.write_wide("READ_LIMIT", behind)
        world.reads.clear()
        await world.job(0, 0)
        await world.until("STATUS", "error", 1)
        assert await world.read("ERROR_CODE") == ErrorCode.WINDOW_READ
        assert await world.wide("ERROR_INFO") == address
        assert all(first <= at < behind for at, _ in world.reads)
        await world.reset()
        await world.write_wide("READ_BASE", base)
        await world.write_wide("READ_LIMIT", base + 0xD000)
        await works(world)
        await world.reset()
    await world.write_wide("WRITE_LIMIT", 0x1000)
    await memory_write(dut, "store", 0x1000, bytes(k), k)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.WINDOW_WRITE
    assert await world.wide("ERROR_INFO") == 0x1000
    assert world.beats == []
    await world.reset()
    await works(world)


@cocotb.test()
async def overflow(dut):
    """The queue holds QUEUE_DEPTH jobs behind the one that runs; one more is an error."""
    world = await start(dut)
    await world.program(pack([random_instruction(world.arch, Opcode.STORE)]))
    world.frozen = {"stores"}
    await world.job(0, 0)
    await bench.cycles(dut, 100)
    for left in reversed(range(csr.QUEUE_DEPTH)):
        await world.job(0, 0)
        assert await world.field("STATUS", "space") == left
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    await world.job(0, 0)
    await world.until("STATUS", "error", 1)
    assert await world.read("ERROR_CODE") == ErrorCode.QUEUE_OVERFLOW
    world.frozen = set()
    await world.reset()
    await works(world)


@cocotb.test()
async def reset_in_flight(dut):
    """CONTROL.reset at any moment: bursts are finished, and a job pushed at once runs."""
    world = await start(dut, pause=0.3)
    k = world.arch.depth
    for _ in range(5):
        ops = random_program(world.arch, 20)
        await world.program(pack(ops))
        await world.job(0, 0)
        tasks = [cocotb.start_soon(memory_read(dut, "load", 0, 200, k, stall=0.3)),
                 cocotb.start_soon(memory_write(dut, "store", 0, bytes(100 * k), k))]
        await bench.cycles(dut, random.randint(1, 300))
        await world.control("reset")
        for task in tasks:
            task.cancel()
        for port in ("load__request", "store__request", "store__data"):
            getattr(dut, f"{port}__valid").value = 0
        await world.reset()
        await works(world)
        # No wait for the end of the reset: the queue is empty at once, and open.
        await world.control("reset")
        world.owed = []
        await works(world)
        await world.reset()
