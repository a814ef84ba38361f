"""Cocotb bench of the driver: its own code across AXI, a model's program on the core."""

import mmap
from pathlib import Path

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import FallingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from vitrify.cosim import bench
from vitrify.driver import CoreDriver
from vitrify.driver.uio import MappedTransport
from vitrify.program import output_mask
from vitrify.program.container import load as load_program

_MEMORY = 1 << 20
#: Cycles of a wait for the interrupt.
_LOOK = 20_000


class Registers:
    """What the driver takes for an array of registers: every access is one on the bus."""

    def __init__(self, bus):
        self._bus = bus

    def __getitem__(self, index):
        return resume(self._bus.read_dword)(4 * index)

    def __setitem__(self, index, value):
        resume(self._bus.write_dword)(4 * index, int(value))


class Transport(MappedTransport):
    """The transport of UIO and PYNQ over simulated AXI; memory is shared, as it is there."""

    def __init__(self, dut):
        memory = mmap.mmap(-1, _MEMORY)
        self._ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, mem=memory)
        bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        super().__init__(Registers(bus), np.frombuffer(memory, np.uint8), 0)
        self._dut = dut

    def wait(self, seconds):  # the time is simulated
        resume(self._interrupt)()

    async def _interrupt(self):
        for _ in range(_LOOK):
            if self._dut.irq.value == 1:
                return
            await FallingEdge(self._dut.clk)


@cocotb.test()
async def images(dut):
    """The driver's results are golden's; the program goes over once."""
    await bench.start(dut)
    program = load_program(Path(bench.option("program")))
    with np.load(bench.option("jobs")) as jobs:
        regions, golden = jobs["regions"], jobs["golden"]
    transport = Transport(dut)

    def host():
        driver = CoreDriver(transport, program.arch)
        driver.load(program.image, program.instruction_count, program.input_bytes,
                    program.output_bytes, len(regions))
        half = len(regions) // 2
        results = [driver.run(part, program.output_bytes)
                   for part in (regions[:half], regions[half:])]
        assert driver.uploaded == len(program.image)
        return np.concatenate(results)

    results = await bridge(host)()
    assert not ((results ^ golden) & output_mask(program)).any()
