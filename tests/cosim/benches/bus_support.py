"""What the bus benches share: contract monitors, a memory with latency, a target with holes."""

from __future__ import annotations

import itertools
import logging
import random
from collections import deque

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotbext.axi import MemoryRegion

from vitrify.cosim import bench
from vitrify.rtl.bus.window import WINDOW
from vitrify.rtl.interfaces import MEMORY_REQUEST

PAGE = 4096


def quiet():
    """Keep the bus models' line-a-burst log out of the way."""
    logging.getLogger("cocotb").setLevel(logging.WARNING)


def pauses(probability):
    """A generator for ``set_pause_generator``."""
    return (random.random() < probability for _ in itertools.count())


class HoleyMemory(MemoryRegion):
    """Memory that answers SLVERR inside ``holes`` (a list of byte ranges)."""

    holes: list[range] = []

    async def _read(self, address, length, **kwargs):
        if any(address in hole for hole in self.holes):
            raise ValueError("hole")
        return await super()._read(address, length, **kwargs)

    async def _write(self, address, data, **kwargs):
        if any(address in hole for hole in self.holes):
            raise ValueError("hole")
        await super()._write(address, data, **kwargs)


def window(first, behind):
    """Value of a WINDOW port: bytes ``first`` to ``behind``."""
    return bench.pack(WINDOW, {"base": first // PAGE, "limit": behind // PAGE})


async def watch_channel(dut, prefix, names, sink):
    """Check that an offered transfer stays until it is taken; collect the taken ones."""
    valid, ready = getattr(dut, f"{prefix}valid"), getattr(dut, f"{prefix}ready")
    signals = [getattr(dut, prefix + name) for name in names]
    held = None
    while True:
        await RisingEdge(dut.clk)
        offered = tuple(int(s.value) for s in signals) if valid.value == 1 else None
        assert held is None or offered == held, f"{prefix}: withdrew or changed an offer"
        if offered is not None and ready.value == 1:
            sink.append(offered)
            held = None
        else:
            held = offered


def check_bursts(bursts, bus_bytes, longest):
    """Every (address, len) is aligned, inside a page and no longer than ``longest`` beats."""
    for address, length in bursts:
        assert address % bus_bytes == 0
        assert length < longest
        assert address // PAGE == (address + (length + 1) * bus_bytes - 1) // PAGE


class FastReads:
    """A memory that takes every read address at once and streams without a gap after ``latency``.

    cocotbext-axi's models answer burst after burst, which hides what the master can sustain.
    """

    def __init__(self, dut, prefix, memory, bus_bytes, latency):
        self.dut, self.prefix, self.memory = dut, prefix, memory
        self.bus_bytes, self.latency = bus_bytes, latency
        self.beats = []  # cycle of every beat
        cocotb.start_soon(self._run())

    def _signal(self, name):
        return getattr(self.dut, self.prefix + name)

    async def _run(self):
        queue, cycle = deque(), 0
        self._signal("arready").value = 1
        while True:
            if queue and queue[0][0] <= cycle:
                _, address, last = queue.popleft()
                data = self.memory[address : address + self.bus_bytes]
                self._signal("rdata").value = int.from_bytes(data, "little")
                self._signal("rlast").value = int(last)
                self._signal("rvalid").value = 1
                self.beats.append(cycle)
            else:
                self._signal("rvalid").value = 0
            await ReadOnly()
            if self._signal("arvalid").value == 1:
                address, count = int(self._signal("araddr").value), int(self._signal("arlen").value)
                for i in range(count + 1):
                    queue.append((cycle + self.latency, address + i * self.bus_bytes, i == count))
            await FallingEdge(self.dut.clk)
            cycle += 1


async def memory_read(dut, port, address, words, depth, *, stall=0.0):
    """Read ``words`` words of ``depth`` bytes through a ``memory_read`` port; returns bytes."""
    request = bench.pack(MEMORY_REQUEST, {"address": address, "words": words})
    await FallingEdge(dut.clk)
    await bench.stream_put(dut, f"{port}__request", [request])
    got = await bench.stream_get(dut, f"{port}__data", words, stall=stall)
    return b"".join(word.to_bytes(depth, "little") for word in got)


async def memory_write(dut, port, address, content, depth, *, gap=0.0):
    """Offer a request and its words to a ``memory_write`` port at the same time."""
    words = [int.from_bytes(content[i : i + depth], "little")
             for i in range(0, len(content), depth)]
    request = bench.pack(MEMORY_REQUEST, {"address": address, "words": len(words)})
    await FallingEdge(dut.clk)
    put = cocotb.start_soon(bench.stream_put(dut, f"{port}__request", [request], gap=gap))
    await bench.stream_put(dut, f"{port}__data", words, gap=gap)
    await put
