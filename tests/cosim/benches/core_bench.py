"""Cocotb bench of the whole core: AXI memory, register master, programs, golden's results."""

import logging
import random

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from vitrify.arch import csr, memmap
from vitrify.cosim import bench

_IMAGE, _INPUT, _OUTPUT, _SIZE = 0x10000, 0x40000, 0x50000, 0x80000
_LIMIT = 60_000


def _job(name):
    with np.load(bench.option("jobs")[name]) as job:
        return {key: value.tobytes() if value.ndim else int(value) for key, value in job.items()}


def _pauses(probability):
    while True:
        yield random.random() < probability


class Host:
    """Drives the core as a processor would."""

    def __init__(self, dut, *, stall=0.0):
        logging.getLogger("cocotb").setLevel(logging.WARNING)
        self.dut = dut
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=_SIZE)
        self.axil = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        if stall:
            read, write = self.ram.read_if, self.ram.write_if
            for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.w_channel,
                            write.b_channel):
                channel.set_pause_generator(_pauses(stall))

    async def write(self, name, value):
        await self.axil.write_dword(csr.BY_NAME[name].offset, value)

    async def read(self, name):
        return await self.axil.read_dword(csr.BY_NAME[name].offset)

    async def counter(self, name):
        return await self.read(f"{name}_LO") | await self.read(f"{name}_HI") << 32

    async def push(self, job, count=1):
        """Put a program into memory and queue it ``count`` times."""
        self.ram.write(_IMAGE, job["image"])
        self.ram.write(_INPUT, job["input"])
        await self.write("CONTROL", 2)
        await self.write("IRQ_ENABLE", 3)
        await self.write("READ_LIMIT_LO", _SIZE)
        await self.write("WRITE_LIMIT_LO", _SIZE)
        await self.write("PROGRAM_BASE_LO", _IMAGE)
        await self.write("PROGRAM_COUNT", job["instructions"])
        await self.write("INPUT_BASE_LO", _INPUT)
        await self.write("TASK", job.get("task", 0))
        for i in range(count):
            await self.write("OUTPUT_BASE_LO", _OUTPUT + i * memmap.ALIGNMENT)
            await self.write("JOB_PUSH", 1)

    def check(self, job, number=0):
        """Compare the output of a job, where it does not depend on stale memory."""
        size = len(job["output"])
        got = self.ram.read(_OUTPUT + number * memmap.ALIGNMENT, size)
        got, want = (np.frombuffer(data, np.uint8) for data in (got, job["output"]))
        wrong = np.flatnonzero((got != want) & np.frombuffer(job["output_known"], bool))
        assert not len(wrong), f"job {number}: {len(wrong)} of {size} bytes, first {wrong[0]}"

    async def finish(self, jobs):
        """Wait for interrupts until ``jobs`` are done."""
        for _ in range(jobs):
            await bench.until(self.dut, lambda: self.dut.irq.value == 1, limit=_LIMIT)
            assert await self.read("ERROR_CODE") == 0
            await self.write("IRQ_STATUS", 3)
            if await self.read("JOBS_DONE") >= jobs:
                break
        assert await self.read("JOBS_DONE") == jobs
        assert await self.read("STATUS") & 3 == 0


async def watch_tokens(dut, tokens):
    """Apply every traced write to ``tokens [token_words, K]``, and count nothing else."""
    arch = bench.arch()
    while True:
        await FallingEdge(dut.clk)
        await ReadOnly()
        for prefix in ("trace_", "trace_mover_"):
            if getattr(dut, f"{prefix}valid").value != 1:
                continue
            address = int(getattr(dut, f"{prefix}addr").value)
            wide = getattr(dut, f"{prefix}wide").value == 1
            mask = int(getattr(dut, f"{prefix}mask").value)
            where = memmap.pair_banks(arch, address) if wide else (address,)
            for word, half in zip(where, ("lo", "hi"), strict=False):
                value = int(getattr(dut, prefix + half).value).to_bytes(arch.depth, "little")
                for byte in range(arch.depth):
                    if mask >> (byte // arch.lanes) & 1:
                        tokens[word, byte] = value[byte]


async def watch_rows(dut, cycles):
    """Collect the cycles in which a row was issued."""
    while True:
        await FallingEdge(dut.clk)
        await ReadOnly()
        if dut.trace_row.value == 1:
            cycles.append(bench.now())


@cocotb.test()
async def every_mechanism(dut):
    """Two jobs of a program that uses everything, with an unsteady memory."""
    arch, job = bench.arch(), _job("every_mechanism")
    host = Host(dut, stall=0.2)
    await bench.start(dut)
    assert await host.read("MAGIC") == csr.MAGIC
    assert await host.read("ARCH_HASH") == arch.hash
    tokens = np.zeros((arch.token_words, arch.depth), np.uint8)
    cocotb.start_soon(watch_tokens(dut, tokens))
    await host.push(job, count=2)
    await host.finish(2)
    want = np.frombuffer(job["tokens"], np.uint8).reshape(tokens.shape)
    known = np.frombuffer(job["tokens_known"], bool).reshape(tokens.shape)
    assert (tokens == want)[known].all()
    for i in range(2):
        host.check(job, i)
    counts = {name: await host.counter(name) for name, _ in csr.COUNTERS}
    stalls = sum(count for name, count in counts.items() if name.startswith("STALL_"))
    assert counts["INSTRUCTIONS"] == 2 * job["instructions"]
    assert 0 <= counts["CYCLES"] - counts["ARRAY_BUSY"] - stalls <= 4


@cocotb.test()
async def full_rate(dut):
    """With rows >= C and data at hand, the array takes a row in every cycle."""
    host = Host(dut)
    await bench.start(dut)
    for done, name in enumerate(bench.option("rates"), 1):
        job, cycles = _job(name), []
        watch = cocotb.start_soon(watch_rows(dut, cycles))
        await host.push(job)
        await host.finish(done)
        watch.cancel()
        host.check(job)
        gaps = np.diff(cycles) - 1
        dut._log.warning("%s: %d rows, %d bubbles, gaps %s", name, len(cycles), gaps.sum(),
                         {int(g): int((gaps == g).sum()) for g in set(gaps.tolist()) if g})
        assert gaps.sum() == 0, f"{name}: {gaps.sum()} bubbles in {len(cycles)} rows"


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.2])
async def programs(dut, stall):
    """Mixtures of experts and of heads, access patterns: outputs and token memory."""
    arch, host = bench.arch(), Host(dut, stall=stall)
    await bench.start(dut)
    tokens = np.zeros((arch.token_words, arch.depth), np.uint8)
    cocotb.start_soon(watch_tokens(dut, tokens))
    for done, name in enumerate(bench.option("programs"), 1):
        job = _job(name)
        await host.push(job)
        await host.finish(done)
        want = np.frombuffer(job["tokens"], np.uint8).reshape(tokens.shape)
        known = np.frombuffer(job["tokens_known"], bool).reshape(tokens.shape)
        wrong = np.argwhere((tokens != want) & known)
        assert not len(wrong), f"{name}: {len(wrong)} bytes, first {wrong[0]}"
        host.check(job)
        assert await host.counter("INSTRUCTIONS") == job["instructions"], name


@cocotb.test()
async def errors_and_reset(dut):
    """An illegal instruction stops the core; after a reset it works again."""
    job = _job("every_mechanism")
    host = Host(dut)
    await bench.start(dut)
    await host.push({"image": bytes(64), "input": b"", "instructions": 1})
    await bench.until(dut, lambda: dut.irq.value == 1, limit=_LIMIT)
    assert await host.read("ERROR_CODE") == csr.ErrorCode.ILLEGAL_INSTRUCTION
    await host.write("CONTROL", 1)
    await bench.cycles(dut, 60)
    # In the middle of a job, too.
    await host.push(job)
    await bench.cycles(dut, 700)
    await host.write("CONTROL", 1)
    await bench.cycles(dut, 200)
    assert await host.read("STATUS") & 3 == 0
    await host.write("IRQ_STATUS", 3)
    await host.push(job)
    await host.finish(1)
    host.check(job)
