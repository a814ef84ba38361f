"""AXI master: data, order, burst rules, rate, errors and an orderly stop."""

from __future__ import annotations

import random

import cocotb
from bus_support import (
    FastReads,
    HoleyMemory,
    check_bursts,
    memory_read,
    memory_write,
    pauses,
    quiet,
    watch_channel,
    window,
)
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiSlave

from vitrify.cosim import bench
from vitrify.rtl.interfaces import MEMORY_REQUEST

SIZE = 1 << 16
READERS = ("instructions", "weights", "loads")
AXI = "m_axi__"


class World:
    """Device, memory behind it, and monitors on every channel it drives."""

    def __init__(self, dut, *, slave=True):
        self.dut, self.arch = dut, bench.arch()
        self.memory = HoleyMemory(SIZE)
        self.memory.holes = []
        self.image = random.randbytes(SIZE)
        self.memory.mem[:] = self.image
        self.reads, self.writes, self.beats = [], [], []
        self.errors = {"read": [], "write": []}
        self.events = {"read": 0, "write": 0}
        self.done = 0
        self.slave = AxiSlave(AxiBus.from_prefix(dut, AXI[:-1]), dut.clk, dut.rst,
                              target=self.memory) if slave else None
        for channel, names, sink in (("ar", ("addr", "len"), self.reads),
                                     ("aw", ("addr", "len"), self.writes),
                                     ("w", ("data", "strb", "last"), self.beats)):
            cocotb.start_soon(watch_channel(dut, AXI + channel, names, sink))
        cocotb.start_soon(self._watch())

    def pause(self, probability):
        for channel in (self.slave.write_if.aw_channel, self.slave.write_if.w_channel,
                        self.slave.write_if.b_channel, self.slave.read_if.ar_channel,
                        self.slave.read_if.r_channel):
            channel.set_pause_generator(pauses(probability))

    async def _watch(self):
        dut = self.dut
        while True:
            await RisingEdge(dut.clk)
            self.done += int(dut.stores__done.value)
            for kind in self.events:
                self.events[kind] += int(getattr(dut, f"{kind}_beat").value)
                if getattr(dut, f"{kind}_error__valid").value == 1:
                    self.errors[kind].append(int(getattr(dut, f"{kind}_error__p").value))

    def check_bursts(self):
        check_bursts(self.reads + self.writes, self.arch.bus_bytes, self.arch.burst_beats)
        assert self.events["read"] == sum(length + 1 for _, length in self.reads)
        assert self.events["write"] == sum(length + 1 for _, length in self.writes)
        assert self.events["write"] == len(self.beats)


async def start(dut, **kwargs):
    quiet()
    await bench.start(dut)
    dut.read_window.value = dut.write_window.value = window(0, SIZE)
    return World(dut, **kwargs)


def region(arch, words):
    """Address of a random region of so many words; sometimes it ends with a page."""
    k = arch.depth
    return k * random.randrange(SIZE // k - words)


@cocotb.test()
async def traffic(dut):
    """Three readers and a writer at once, random lengths, random stalls everywhere."""
    world = await start(dut)
    arch = world.arch
    k = arch.depth
    half = SIZE // 2

    async def reader(port, stall):
        for _ in range(5):
            words = random.choice((1, 2, 3, random.randint(4, 80)))
            address = k * random.randrange(half // k - words)
            got = await memory_read(dut, port, address, words, k, stall=stall)
            assert got == world.image[address : address + len(got)], f"{port} at {address:#x}"

    expected = bytearray(world.image)

    async def writer(gap):
        for _ in range(5):
            words = random.choice((1, 2, random.randint(3, 80)))
            address = half + k * random.randrange(half // k - words)
            content = random.randbytes(words * k)
            expected[address : address + len(content)] = content
            await memory_write(dut, "stores", address, content, k, gap=gap)

    requests = 0
    for pause, stall, gap in ((0.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.0, 0.7, 0.0), (0.3, 0.3, 0.3)):
        world.pause(pause)
        tasks = [cocotb.start_soon(reader(port, stall)) for port in READERS]
        tasks.append(cocotb.start_soon(writer(gap)))
        for task in tasks:
            await bench.finish(task)
        requests += 5
        await bench.until(dut, lambda: world.done == requests)  # noqa: B023
        assert dut.idle.value == 1
        assert world.memory.mem[:] == expected
    world.check_bursts()
    assert world.errors == {"read": [], "write": []}


@cocotb.test()
async def stuck_reader(dut):
    """A reader that takes nothing holds up nobody else."""
    world = await start(dut)
    k = world.arch.depth
    late = 3 * world.arch.fifo_words["loads"]
    request = bench.pack(MEMORY_REQUEST, {"address": 0, "words": late})
    await bench.stream_put(dut, "loads__request", [request])
    await bench.cycles(dut, 500)
    for port in ("instructions", "weights"):
        words = 1200 // k
        got = await bench.finish(memory_read(dut, port, 8192, words, k), limit=3000)
        assert got == world.image[8192 : 8192 + words * k]
    got = await bench.finish(bench.stream_get(dut, "loads__data", late))
    assert b"".join(word.to_bytes(k, "little") for word in got) == world.image[: late * k]


def keeps_up(arch, latency):
    """Whether bursts in flight cover a latency; one begins every other cycle at most."""
    return arch.burst_beats > 1 and arch.outstanding * arch.burst_beats > latency + 16


@cocotb.test()
@cocotb.parametrize(ports=[("loads",), ("weights", "loads")])
async def read_rate(dut, ports):
    """One beat every cycle behind a latency of 100 cycles, alone and shared."""
    world = await start(dut, slave=False)
    arch = world.arch
    k = arch.depth
    fast = FastReads(dut, AXI, world.image, arch.bus_bytes, latency=100)
    words = 1500 * arch.bus_bytes // k
    starts = [k * (3 + 32 * i) for i in range(len(ports))]
    tasks = [cocotb.start_soon(memory_read(dut, port, at, words, k))
             for port, at in zip(ports, starts, strict=True)]
    for task, at in zip(tasks, starts, strict=True):
        assert await bench.finish(task) == world.image[at : at + words * k]
    span, count = fast.beats[-1] - fast.beats[0] + 1, len(fast.beats)
    dut._log.warning("%s: %d beats in %d cycles", ports, count, span)
    assert count / span > 0.98 or not keeps_up(arch, latency=100)


@cocotb.test()
async def write_rate(dut):
    """Writes reach the bus at full rate when the memory takes them."""
    world = await start(dut, slave=False)
    arch = world.arch
    k = arch.depth
    for channel in ("aw", "w"):
        getattr(dut, f"{AXI}{channel}ready").value = 1
    cycles = []

    async def responses():
        owed, cycle = 0, 0
        valid = getattr(dut, f"{AXI}bvalid")
        while True:
            valid.value = int(owed > 0)
            owed -= owed > 0
            await ReadOnly()
            if getattr(dut, f"{AXI}wvalid").value == 1:
                cycles.append(cycle)
                owed += int(getattr(dut, f"{AXI}wlast").value)
            await FallingEdge(dut.clk)
            cycle += 1

    cocotb.start_soon(responses())
    words = 1600 * arch.bus_bytes // k
    content = random.randbytes(words * k)
    await bench.finish(memory_write(dut, "stores", 0, content, k))
    await bench.until(dut, lambda: world.done == 1)
    assert b"".join(b[0].to_bytes(arch.bus_bytes, "little") for b in world.beats) == content
    span = cycles[-1] - cycles[0] + 1
    dut._log.warning("%d beats in %d cycles", len(cycles), span)
    assert len(cycles) / span > 0.95 or not keeps_up(arch, latency=0)


@cocotb.test()
async def errors(dut):
    """SLVERR is reported with the address of its burst, and the data still come."""
    world = await start(dut)
    arch = world.arch
    k = arch.depth
    world.memory.holes = [range(4096, 4096 + min(k, arch.burst_beats * arch.bus_bytes))]
    words = 1024 // k
    got = await bench.finish(memory_read(dut, "weights", 4096 - 512, words, k))
    assert len(got) == 1024
    assert got[:512] == world.image[4096 - 512 : 4096]
    await bench.cycles(dut, 5)
    assert set(world.errors["read"]) == {4096}
    await memory_write(dut, "stores", 4096 - 512, bytes(1024), k)
    await bench.until(dut, lambda: world.done == 1)
    await bench.cycles(dut, 5)
    assert world.errors["write"] == [4096]


@cocotb.test()
async def stop(dut):
    """After ``stop`` nothing new begins, what began is finished, and reset may follow."""
    world = await start(dut)
    world.pause(0.3)
    k = world.arch.depth
    for _ in range(6):
        tasks = [cocotb.start_soon(memory_write(dut, "stores", 0, random.randbytes(400 * k), k))]
        for port in READERS:
            request = bench.pack(MEMORY_REQUEST, {"address": 0, "words": 400})
            tasks.append(cocotb.start_soon(bench.stream_put(dut, f"{port}__request", [request])))
        dut.weights__data__ready.value = 1
        await bench.cycles(dut, random.randint(20, 400))
        dut.stop.value = 1
        await bench.cycles(dut, 2)
        begun = (len(world.reads), len(world.writes))
        offered = [int(getattr(dut, f"{AXI}{c}valid").value) for c in ("ar", "aw")]
        await bench.until(dut, lambda: dut.idle.value == 1)
        await bench.cycles(dut, 100)
        assert dut.idle.value == 1
        assert len(world.reads) <= begun[0] + offered[0]
        assert len(world.writes) <= begun[1] + offered[1]
        world.check_bursts()
        for task in tasks:
            task.cancel()
        for port in READERS:
            getattr(dut, f"{port}__request__valid").value = 0
        dut.stores__request__valid.value = dut.stores__data__valid.value = 0
        dut.rst.value = 1
        await bench.cycles(dut, 2)
        dut.rst.value = dut.stop.value = 0
        await bench.cycles(dut, 2)
        got = await bench.finish(memory_read(dut, "loads", 8 * k, 40, k))
        assert len(got) == 40 * k


@cocotb.test()
async def windows(dut):
    """Bursts outside the windows stay away from the bus and are reported; those before arrive."""
    world = await start(dut)
    k = world.arch.depth
    low, high = 0x3000, 0x5000
    for port in (*READERS, "stores"):
        kind = "write" if port == "stores" else "read"
        for at, words in ((low - k, 1), (high, 2), (high - 2 * k, 5), (low - 0x1000, 3 * high // k),
                          ((1 << 32) + low, 1), ((1 << 40) - k, 1)):
            other = "read" if kind == "write" else "write"
            getattr(dut, f"{other}_window").value = window(0, 0)
            getattr(dut, f"{kind}_window").value = window(low, high)
            world.reads.clear()
            world.writes.clear()
            request = bench.pack(MEMORY_REQUEST, {"address": at, "words": words})
            tasks = [cocotb.start_soon(bench.stream_put(dut, f"{port}__request", [request]))]
            if kind == "read":
                getattr(dut, f"{port}__data__ready").value = 1
            else:
                tasks.append(cocotb.start_soon(bench.stream_put(dut, "stores__data", [1] * words)))
            refused = getattr(dut, f"{kind}_refused__valid")
            await bench.until(dut, lambda: refused.value == 1, limit=5000)  # noqa: B023
            first = at if not low <= at < high else high
            assert int(getattr(dut, f"{kind}_refused__p").value) == first
            assert getattr(dut, f"{other}_refused__valid").value == 0
            await bench.until(dut, lambda: dut.idle.value == 1)
            await bench.cycles(dut, 50)
            assert refused.value == 1
            for address, length in world.reads + world.writes:
                assert low <= address
                assert address + (length + 1) * world.arch.bus_bytes <= high
            reached = sum(length + 1 for _, length in world.reads + world.writes)
            assert reached * world.arch.bus_bytes == (high - at if low <= at < high else 0)
            for task in tasks:
                task.cancel()
            getattr(dut, f"{port}__request__valid").value = dut.stores__data__valid.value = 0
            dut.rst.value = 1
            await bench.cycles(dut, 2)
            dut.rst.value = 0
            assert refused.value == 0
            await bench.cycles(dut, 2)
