"""Several ports behind one: data, order, stripes, credits, rate and errors."""

from __future__ import annotations

import random

import cocotb
from bus_support import FastReads, HoleyMemory, check_bursts, pauses, quiet, watch_channel
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiMaster, AxiSlave

from vitrify.arch.names import port_names
from vitrify.cosim import bench

SIZE = 1 << 15


class World:
    """Device between a master and one memory behind all ports, and monitors on the ports."""

    def __init__(self, dut, *, slaves=True, master=True):
        self.dut, self.arch = dut, bench.arch()
        self.memory = HoleyMemory(SIZE)
        self.memory.holes = []
        self.memory.mem[:] = random.randbytes(SIZE)
        self.names = [f"{name}__" for name in port_names(self.arch)]
        self.bursts = {name: {"ar": [], "aw": []} for name in self.names}
        for name in self.names:
            for channel, sink in self.bursts[name].items():
                cocotb.start_soon(watch_channel(dut, name + channel, ("addr", "len"), sink))
            cocotb.start_soon(watch_channel(dut, f"{name}w", ("data", "strb", "last"), []))
            cocotb.start_soon(self._whole_writes(name))
        cocotb.start_soon(watch_channel(dut, "bus__r", ("data", "last", "resp"), []))
        cocotb.start_soon(watch_channel(dut, "bus__b", ("resp",), []))
        self.slaves = [
            AxiSlave(AxiBus.from_prefix(dut, name[:-2] + "_"), dut.clk, dut.rst, target=self.memory)
            for name in self.names if slaves
        ]
        self.master = AxiMaster(AxiBus.from_prefix(dut, "bus_"), dut.clk, dut.rst,
                                max_burst_len=16) if master else None

    async def _whole_writes(self, name):
        """A burst is announced when its data are at hand: from its first beat on, no gap."""
        dut, inside = self.dut, False
        while True:
            await RisingEdge(dut.clk)
            valid = getattr(dut, f"{name}wvalid").value == 1
            assert valid or not inside, f"{name}: a gap inside a burst"
            if valid:
                last = getattr(dut, f"{name}wlast").value == 1
                taken = getattr(dut, f"{name}wready").value == 1
                inside = not (last and taken)

    def pause(self, probability):
        for side in (*self.slaves, self.master):
            for channel in (side.write_if.aw_channel, side.write_if.w_channel,
                            side.write_if.b_channel, side.read_if.ar_channel,
                            side.read_if.r_channel):
                channel.set_pause_generator(pauses(probability))

    def check(self):
        stripe = self.arch.stripe_bytes
        for i, name in enumerate(self.names):
            bursts = [b for sink in self.bursts[name].values() for b in sink]
            assert bursts, f"{name} had nothing to do"
            check_bursts(bursts, self.arch.port_bytes, 16)
            for address, length in bursts:
                assert address // stripe % self.arch.ports == i
                last = address + (length + 1) * self.arch.port_bytes - 1
                assert address // stripe == last // stripe


async def start(dut, **kwargs):
    quiet()
    await bench.start(dut)
    return World(dut, **kwargs)


def piece(bus, low, high):
    """A random range of whole beats."""
    first, last = sorted(random.randrange(low // bus, high // bus) for _ in range(2))
    size = min(last - first + 1, 80)
    return first * bus, size * bus


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.5])
async def data(dut, stall):
    """Reads and writes of any length and place, at the same time, come and go as they should."""
    world = await start(dut)
    world.pause(stall)
    half, bus = SIZE // 2, world.arch.bus_bytes

    async def reads():
        for _ in range(10):
            tasks = []
            for at, size in (piece(bus, half, SIZE) for _ in range(6)):
                tasks.append((at, size, cocotb.start_soon(world.master.read(at, size, arid=0))))
            for at, size, task in tasks:
                assert (await task).data == bytes(world.memory.mem[at : at + size])

    async def writes():
        expected = bytearray(world.memory.mem[:half])
        for _ in range(10):
            tasks, taken = [], []
            for at, size in (piece(bus, 0, half) for _ in range(6)):
                # The order of writes that overlap is the bus's, not the master's.
                if all(at + size <= a or at >= b for a, b in taken):
                    taken.append((at, at + size))
                    content = random.randbytes(size)
                    expected[at : at + size] = content
                    tasks.append(cocotb.start_soon(world.master.write(at, content, awid=0)))
            for task in tasks:
                await task
        assert bytes(world.memory.mem[:half]) == bytes(expected)

    tasks = [cocotb.start_soon(reads()), cocotb.start_soon(writes())]
    for task in tasks:
        await bench.finish(task, limit=400_000)
    world.check()


@cocotb.test()
async def errors(dut):
    """An error reaches the beats of its stripe, and the response of its burst, and no other."""
    world = await start(dut)
    bus, stripe = world.arch.bus_bytes, world.arch.stripe_bytes
    hole = 4 * stripe
    world.memory.holes = [range(hole, hole + world.arch.port_bytes)]
    for at in (hole - stripe, hole, hole + stripe, hole - stripe):
        fails = at <= hole < at + 16 * bus
        assert (await world.master.read(at, 16 * bus, arid=0)).resp == (2 if fails else 0)
        assert (await world.master.write(at, bytes(16 * bus), awid=0)).resp == (2 if fails else 0)
    assert (await world.master.read(0, 64 * bus, arid=0)).resp == (2 if hole < 64 * bus else 0)


def announce(dut, channel, address, beats):
    getattr(dut, f"bus__{channel}addr").value = address
    getattr(dut, f"bus__{channel}len").value = beats - 1
    getattr(dut, f"bus__{channel}valid").value = 1


@cocotb.test()
async def read_rate(dut):
    """Every cycle a beat of the whole bus, behind a latency of 100 cycles."""
    world = await start(dut, slaves=False, master=False)
    arch, bursts = world.arch, 60
    for name in world.names:
        FastReads(dut, name, bytes(world.memory.mem), arch.port_bytes, latency=100)
    beats, got = [], []
    dut.bus__rready.value = 1

    async def watch():
        cycle = 0
        while True:
            await RisingEdge(dut.clk)
            if dut.bus__rvalid.value == 1:
                beats.append(cycle)
                got.append(int(dut.bus__rdata.value).to_bytes(arch.bus_bytes, "little"))
            cycle += 1

    cocotb.start_soon(watch())
    for i in range(bursts):
        announce(dut, "ar", i * 16 * arch.bus_bytes % SIZE, 16)
        await bench.until(dut, lambda: dut.bus__arready.value == 1)
        await FallingEdge(dut.clk)
    dut.bus__arvalid.value = 0
    await bench.until(dut, lambda: len(got) == 16 * bursts)
    size = 16 * bursts * arch.bus_bytes
    assert b"".join(got) == (bytes(world.memory.mem) * (size // SIZE + 1))[:size]
    steady = beats[64:]
    assert len(steady) / (steady[-1] - steady[0] + 1) > 0.98


@cocotb.test()
async def read_credits(dut):
    """Nobody takes data: each port's reads end with what its FIFO holds."""
    world = await start(dut, master=False)
    arch = world.arch
    dut.bus__rready.value = 0
    for i in range(4 * arch.outstanding):
        announce(dut, "ar", i * 16 * arch.bus_bytes % SIZE, 16)
        for _ in range(60):
            await RisingEdge(dut.clk)
            if dut.bus__arready.value == 1:
                break
        await FallingEdge(dut.clk)
    for name in world.names:
        stripes = len(world.bursts[name]["ar"])
        # One beat and one register further.
        assert arch.outstanding - 1 <= stripes <= arch.outstanding + 1
        assert getattr(dut, f"{name}rready").value == 1


@cocotb.test()
async def write_rate(dut):
    """Every cycle a beat of the whole bus is taken while each port takes one of its own."""
    world = await start(dut, slaves=False, master=False)
    arch, bursts = world.arch, 40
    written, answered = bytearray(SIZE), []
    dut.bus__bready.value = 1

    async def memory(name):
        queue, place, owed = world.bursts[name]["aw"], 0, 0
        taken, at = 0, 0
        for channel in ("aw", "w"):
            getattr(dut, f"{name}{channel}ready").value = 1
        while True:
            getattr(dut, f"{name}bvalid").value = int(owed > 0)
            owed -= owed > 0
            await ReadOnly()
            if getattr(dut, f"{name}wvalid").value == 1:
                # Announced before, or in this cycle.
                address = queue[taken][0] if taken < len(queue) else int(
                    getattr(dut, f"{name}awaddr").value)
                at = (address + place * arch.port_bytes) % SIZE
                word = int(getattr(dut, f"{name}wdata").value)
                written[at : at + arch.port_bytes] = word.to_bytes(arch.port_bytes, "little")
                place += 1
                if getattr(dut, f"{name}wlast").value == 1:
                    taken, place, owed = taken + 1, 0, owed + 1
            await FallingEdge(dut.clk)

    async def responses():
        while True:
            await RisingEdge(dut.clk)
            if dut.bus__bvalid.value == 1:
                answered.append(int(dut.bus__bresp.value))

    for name in world.names:
        cocotb.start_soon(memory(name))
    cocotb.start_soon(responses())
    content = random.randbytes(min(SIZE, bursts * 16 * arch.bus_bytes))

    async def addresses():
        for i in range(bursts):
            announce(dut, "aw", i * 16 * arch.bus_bytes % SIZE, 16)
            await bench.until(dut, lambda: dut.bus__awready.value == 1)
            await FallingEdge(dut.clk)
        dut.bus__awvalid.value = 0

    cocotb.start_soon(addresses())
    cycles = 0
    for i in range(16 * bursts):
        at = i * arch.bus_bytes % len(content)
        dut.bus__wdata.value = int.from_bytes(content[at : at + arch.bus_bytes], "little")
        dut.bus__wlast.value = int(i % 16 == 15)
        dut.bus__wvalid.value = 1
        while True:
            await RisingEdge(dut.clk)
            cycles += 1
            if dut.bus__wready.value == 1:
                break
        await FallingEdge(dut.clk)
    dut.bus__wvalid.value = 0
    await bench.until(dut, lambda: len(answered) == bursts)
    assert not any(answered)
    assert bytes(written[: len(content)]) == content
    assert 16 * bursts / cycles > 0.95
