"""Register file: every register of the table, as a driver uses it."""

from __future__ import annotations

import itertools
import random

import cocotb
from bus_support import pauses, quiet, watch_channel
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from vitrify.arch import csr
from vitrify.arch.csr import Access
from vitrify.cosim import bench
from vitrify.rtl.bus.csr import COUNTER_VALUES, constants

RW = [r for r in csr.REGISTERS if r.access is Access.RW]
COUNTERS = dict(csr.COUNTERS)


def is_counter(register):
    return register.name[:-3] in COUNTERS


async def start(dut, pause):
    quiet()
    await bench.start(dut)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_"), dut.clk, dut.rst)
    if pause:
        for channel in (master.write_if.aw_channel, master.write_if.w_channel,
                        master.write_if.b_channel, master.read_if.ar_channel,
                        master.read_if.r_channel):
            channel.set_pause_generator(pauses(random.random() * 0.7))
    for channel, names in (("b", ("resp",)), ("r", ("data", "resp"))):
        cocotb.start_soon(watch_channel(dut, f"s_axi__{channel}", names, []))
    return master


def width(register):
    """Bits that a register has; those above read as zero."""
    return max((f.lsb + f.bits for f in register.fields), default=32)


async def read(master, name):
    return await master.read_dword(csr.BY_NAME[name].offset)


async def write(master, name, value):
    await master.write_dword(csr.BY_NAME[name].offset, value)


@cocotb.test()
@cocotb.parametrize(pause=[False, True])
async def registers(dut, pause):
    master = await start(dut, pause)
    for name, value in constants(bench.arch()).items():
        assert await read(master, name) == value, name
    # Every RW register keeps its own value, on the port and on the bus.
    values = {r.name: random.getrandbits(width(r)) for r in RW}
    for name in random.sample(list(values), len(values)):
        above = random.getrandbits(32) << width(csr.BY_NAME[name]) & 0xFFFFFFFF
        await write(master, name, values[name] | above)
    for name, value in values.items():
        assert await read(master, name) == value, name
        assert int(getattr(dut, name.lower()).value) == value, name
    # Byte strobes: one byte of a register.
    name = random.choice([r.name for r in RW if width(r) == 32])
    await master.write(csr.BY_NAME[name].offset + 1, b"\xa5")
    values[name] = values[name] & ~0xFF00 | 0xA500
    assert await read(master, name) == values[name]
    # RO registers show their inputs and ignore writes.
    for register in csr.REGISTERS:
        if register.access is Access.RO and not is_counter(register) \
                and register.name not in constants(bench.arch()):
            port = getattr(dut, register.name.lower())
            value = random.getrandbits(32)
            port.value = value
            await write(master, register.name, ~value & 0xFFFFFFFF)
            assert await read(master, register.name) == value, register.name
    # Counters, both halves.
    counts = {name.lower(): random.getrandbits(64) for name in COUNTERS}
    dut.counters.value = bench.pack(COUNTER_VALUES, counts)
    for name in COUNTERS:
        low, high = await read(master, f"{name}_LO"), await read(master, f"{name}_HI")
        assert high << 32 | low == counts[name.lower()], name


@cocotb.test()
@cocotb.parametrize(pause=[False, True])
async def unmapped(dut, pause):
    """Addresses without a register read as zero and change nothing."""
    master = await start(dut, pause)
    for register in RW:
        await write(master, register.name, 0x12345678)
    mapped = {r.offset for r in csr.REGISTERS}
    addresses = [a for a in range(0, 1 << csr.CSR_ADDRESS_BITS, 4) if a not in mapped]
    for address in random.sample(addresses, 30):
        await master.write_dword(address, 0xFFFFFFFF)
        assert await master.read_dword(address) == 0
    for register in RW:
        assert await read(master, register.name) == 0x12345678 & (1 << width(register)) - 1


@cocotb.test()
@cocotb.parametrize(pause=[False, True])
async def actions(dut, pause):
    """Write-only registers: one pulse a write, with the written bits; they read as zero."""
    master = await start(dut, pause)
    seen = []

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            for name in ("control", "job_push"):
                value = int(getattr(dut, name).value)
                if getattr(dut, f"{name}_write").value == 1:
                    seen.append((name, value))
                else:
                    assert value == 0, f"{name} outside of a write"

    cocotb.start_soon(watch())
    expected = []
    for name, value in itertools.product(("job_push", "control"), (0, 1, 2, 0xFFFFFFFF)):
        await write(master, name.upper(), value)
        expected.append((name, value))
        assert await read(master, name.upper()) == 0
    await bench.cycles(dut, 3)
    assert seen == expected


@cocotb.test()
@cocotb.parametrize(pause=[False, True])
async def interrupts(dut, pause):
    """Set by events, cleared by ones, gated by the enable; an event wins over its clearing."""
    master = await start(dut, pause)
    for done, error in ((1, 0), (0, 1), (1, 1)):
        await write(master, "IRQ_ENABLE", 0)
        dut.irq_status.value = bits = done | error << 1
        await bench.cycles(dut, 2)
        dut.irq_status.value = 0
        assert await read(master, "IRQ_STATUS") == bits
        assert dut.irq.value == 0
        for enable in range(4):
            await write(master, "IRQ_ENABLE", enable)
            await bench.cycles(dut, 2)
            assert dut.irq.value == int(bool(enable & bits))
        await write(master, "IRQ_STATUS", ~bits & 3)
        assert await read(master, "IRQ_STATUS") == bits
        await write(master, "IRQ_STATUS", bits)
        assert await read(master, "IRQ_STATUS") == 0
        await bench.cycles(dut, 2)
        assert dut.irq.value == 0
    dut.irq_status.value = 1
    await write(master, "IRQ_STATUS", 3)
    await bench.cycles(dut, 2)
    assert await read(master, "IRQ_STATUS") == 1
    dut.irq_status.value = 0
    dut.irq_status_clear.value = 1
    await bench.cycles(dut, 2)
    dut.irq_status_clear.value = 0
    assert await read(master, "IRQ_STATUS") == 0
