"""Jobs and instructions, as a driver sees them."""

from __future__ import annotations

import random

import cocotb
from control_model import (
    BASE_HIGH,
    COMMANDS,
    PROGRAM,
    Expectation,
    pack,
    random_instruction,
    random_program,
    start,
)

from vitrify.arch import csr, isa
from vitrify.arch.csr import ErrorCode
from vitrify.arch.isa import Opcode, Region
from vitrify.cosim import bench
from vitrify.rtl.control.controller import ENGINE_EVENTS
from vitrify.rtl.control.dispatcher import SETTLE_CYCLES
from vitrify.rtl.control.run_ahead import WINDOW


@cocotb.test()
@cocotb.parametrize(pause=[0.0, 0.4])
async def jobs(dut, pause):
    """Three jobs of a random program: commands, weights, counters, interrupts."""
    world = await start(dut, pause)
    expected = Expectation(world)
    ops = random_program(world.arch, 60)
    # Instructions behind END are prefetched, but never executed.
    await world.program([*pack(ops), *pack(ops)])
    await world.write("IRQ_ENABLE", 3)
    assert await world.field("STATUS", "space") == csr.QUEUE_DEPTH
    pairs = [(random.getrandbits(28) << 12, random.getrandbits(28) << 12, random.getrandbits(32))
             for _ in range(3)]
    for pair in pairs:
        expected.run(ops, *pair)
        await world.job(*pair)
    assert await world.field("STATUS", "busy") == 1
    await world.until("STATUS", "busy", 0)
    assert await world.read("JOBS_DONE") == 3
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    expected.check()
    assert dut.irq.value == 1
    await world.write("IRQ_STATUS", 1)
    await bench.cycles(dut, 3)
    assert dut.irq.value == 0
    assert await world.read("INSTRUCTIONS_LO") == 3 * (len(ops) + 1)
    beats = sum(length + 1 for _, length in world.reads)
    assert await world.read("DRAM_READ_BEATS_LO") == beats
    cycles = await world.read("CYCLES_LO")
    assert cycles > beats
    assert await world.read("CYCLES_LO") == cycles, "counted without a job"
    # A task may carry over into the upper half.
    assert {address >> 36 for address, _ in world.reads} == {BASE_HIGH >> 4}
    await world.control("clear_counters")
    assert await world.read("CYCLES_LO") == 0


@cocotb.test()
async def counters(dut):
    """Events count while a job runs, and only then."""
    world = await start(dut)
    await world.program(pack([]))
    names = list(ENGINE_EVENTS.members)
    for name in names:
        dut.events.value = bench.pack(ENGINE_EVENTS, {name: 1})
        await bench.cycles(dut, 5)
        await world.control("clear_counters")
        await world.job(0, 0)
        await bench.cycles(dut, 10)
        await world.until("STATUS", "busy", 0)
        cycles = await world.read("CYCLES_LO")
        assert cycles > 0
        for other in names:
            if not other.startswith("dram"):
                count = await world.read(f"{other.upper()}_LO")
                assert count == (cycles if other == name else 0), (name, other)
    dut.events.value = 0


@cocotb.test()
async def end_waits(dut):
    """END waits for the last engine."""
    world = await start(dut)
    ops = [isa.make(Opcode.MATMUL, stream_words=3)] + [
        random_instruction(world.arch, op) for op in (Opcode.LOAD, Opcode.STORE, Opcode.ROUTE)
    ]
    await world.program(pack(ops))
    for name in COMMANDS:
        world.frozen = {name}
        await world.job(0, 0)
        done = await world.read("JOBS_DONE")
        await bench.cycles(dut, 300)
        assert await world.read("JOBS_DONE") == done, f"did not wait for {name}"
        assert await world.field("STATUS", "busy") == 1
        world.frozen = set()
        await world.until("STATUS", "busy", 0)
        assert await world.read("JOBS_DONE") == done + 1


@cocotb.test()
async def end_outlasts_what_is_between_two_units(dut):
    """All engines look idle while a command is on its way from one to the next."""
    world = await start(dut)
    await world.program(pack([]))
    world.held = {"fetch"}
    await world.job(0, 0)
    await bench.cycles(dut, 100)
    for after in ("epilogue", "stores"):
        world.held = set()
        await bench.cycles(dut, SETTLE_CYCLES - 3)
        world.held = {after}
        await bench.cycles(dut, 100)
        assert await world.field("STATUS", "busy") == 1, f"done before {after} began"
    world.held = set()
    await world.until("STATUS", "busy", 0)


@cocotb.test()
async def program_of_the_job(dut):
    """Program and count are queued with a job; writing them later changes the next one only."""
    world = await start(dut)
    expected = Expectation(world)
    first, second = random_program(world.arch, 30), random_program(world.arch, 12)
    other = PROGRAM + 0x2000
    # Both before anything is expected: weights may lie where a program does.
    world.put(pack(second), other)
    await world.program(pack(first))
    expected.run(first, 0x1000, 0x2000)
    expected.run(second, 0x3000, 0x4000, at=other)
    expected.run(first, 0x5000, 0x6000)
    world.frozen = {"stores"}
    await world.job(0x1000, 0x2000)
    await bench.cycles(dut, random.randint(0, 60))
    await world.program(pack(second), at=other)
    await world.job(0x3000, 0x4000)
    await world.program(pack(first))
    await world.job(0x5000, 0x6000)
    await world.write("PROGRAM_BASE_LO", 0xF000)
    await world.write("PROGRAM_COUNT", 0)
    world.frozen = set()
    await world.until("STATUS", "busy", 0)
    assert await world.read("JOBS_DONE") == 3
    assert await world.read("ERROR_CODE") == ErrorCode.NONE
    expected.check()


@cocotb.test()
async def run_ahead(dut):
    """Sequence numbers stay comparable however slow one engine is."""
    world = await start(dut)
    world.slow = 0
    matmul, load = isa.make(Opcode.MATMUL), isa.make(Opcode.LOAD)
    store = isa.make(Opcode.STORE, region=Region.OUTPUT)
    for slow, op, fast, name in ((load, matmul, "epilogue", "loads"),
                                 (store, matmul, "epilogue", "stores"),
                                 (matmul, load, "loads", "epilogue")):
        await world.program(pack([slow] + [op] * 300))
        world.frozen = {name}
        await world.job(0, 0)
        await bench.cycles(dut, 1500)
        passed = len(world.taken[fast])
        assert WINDOW <= passed <= 2 * WINDOW + isa.COMMAND_DEPTH, passed
        world.frozen = set()
        await world.until("STATUS", "busy", 0)
        assert len(world.taken[fast]) == 300
        await world.reset()
