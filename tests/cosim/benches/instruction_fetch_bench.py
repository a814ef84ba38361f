"""Instruction fetch: every instruction in order, at most two chunks too many."""

from __future__ import annotations

import random

import cocotb
from cocotb.triggers import FallingEdge

from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.cosim import bench
from vitrify.rtl.control.instruction_fetch import CHUNK
from vitrify.rtl.interfaces import MEMORY_REQUEST

BASE = 1 << 39


class Memory:
    """Answers requests; remembers how many words it was asked for."""

    def __init__(self, dut, stall):
        self.dut, self.stall, self.words = dut, stall, 0
        self.image = random.randbytes(64 * INSTRUCTION_BYTES)
        cocotb.start_soon(self._run())

    async def _run(self):
        k = bench.arch().depth
        while True:
            request, = await bench.stream_get(self.dut, "memory__request", 1, stall=self.stall)
            fields = bench.unpack(MEMORY_REQUEST, request)
            at, self.words = fields["address"] - BASE, self.words + fields["words"]
            words = [int.from_bytes(self.image[at + i * k : at + (i + 1) * k], "little")
                     for i in range(fields["words"])]
            await bench.stream_put(self.dut, "memory__data", words, gap=self.stall)

    def instruction(self, i):
        return int.from_bytes(self.image[i * INSTRUCTION_BYTES : (i + 1) * INSTRUCTION_BYTES],
                              "little")


async def pulse(dut, name):
    getattr(dut, name).value = 1
    await FallingEdge(dut.clk)
    getattr(dut, name).value = 0


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def programs(dut, stall):
    """Any count, taken to the end or stopped early, one after the other."""
    await bench.start(dut)
    memory = Memory(dut, stall)
    assert dut.exhausted.value == 1
    for count in [0, 1, 2, 3, 4, 5, *random.sample(range(6, 50), 8)]:
        take = random.choice((count, random.randint(0, count)))
        dut.base.value, dut.count.value = BASE, count
        memory.words = 0
        await bench.until(dut, lambda: dut.idle.value == 1)
        await pulse(dut, "start")
        assert int(dut.exhausted.value) == (count == 0)
        got = await bench.finish(bench.stream_get(dut, "o", take, stall=stall), limit=20000)
        assert got == [memory.instruction(i) for i in range(take)]
        assert int(dut.exhausted.value) == (take == count)
        if take < count:
            await bench.cycles(dut, random.randint(0, 50))
            await pulse(dut, "stop")
        await bench.until(dut, lambda: dut.idle.value == 1)
        await bench.cycles(dut, 20)
        assert dut.idle.value == 1
        assert dut.o__valid.value == 0
        asked = memory.words * bench.arch().depth
        assert asked <= (take + 3 * CHUNK) * INSTRUCTION_BYTES
        assert asked < (count + 2) * INSTRUCTION_BYTES
