"""LOAD, STORE and LOAD_INDEX against the golden machine."""

from __future__ import annotations

import random
from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats, isa
from vitrify.arch.isa import Opcode, Region
from vitrify.cosim import bench
from vitrify.golden.machine import Machine
from vitrify.rtl.interfaces import (
    EPILOGUE_PROGRESS,
    MEMORY_REQUEST,
    MOVE_COMMAND,
    MOVER_PROGRESS,
    READ_LATENCY,
)
from vitrify.rtl.memory.index_memory import index_write

SIZE = 1 << 16


class World:
    """Token memory, index memory and DRAM around the mover, as slow as asked."""

    def __init__(self, dut, *, stall):
        self.dut, self.arch, self.stall = dut, bench.arch(), stall
        generator = bench.rng()
        self.tokens = generator.integers(
            0, 256, (self.arch.token_words, self.arch.depth), np.uint8
        )
        self.index = np.zeros(self.arch.index_entries, np.int64)
        self.input = generator.integers(0, 256, SIZE, np.uint8)
        self.output = np.zeros(SIZE, np.uint8)
        self.machine = Machine(self.arch)
        self.machine.tokens.bytes[:] = self.tokens
        self.grants = []         # cycle of every granted token-memory write
        self.progress = []       # (cycle, seq, words) of every change
        for task in (self._token_memory(), self._index_memory(), self._dram_reads(),
                     self._dram_writes(), self._watch()):
            cocotb.start_soon(task)

    def _grant(self):
        return random.random() >= self.stall

    async def _token_memory(self):
        dut, arch = self.dut, self.arch
        answers, k = deque([None] * READ_LATENCY), arch.depth
        while True:
            dut.write__ready.value, dut.read__ready.value = self._grant(), self._grant()
            answer = answers.popleft()
            dut.read__lo.value = random.getrandbits(8 * k) if answer is None else answer
            await ReadOnly()
            read = None
            if dut.read__valid.value == 1 and dut.read__ready.value == 1:
                assert dut.read__wide.value == 0
                read = int.from_bytes(self.tokens[int(dut.read__addr.value)].tobytes(), "little")
            answers.append(read)
            if dut.write__valid.value == 1 and dut.write__ready.value == 1:
                assert int(dut.write__mask.value) == (1 << len(dut.write__mask)) - 1
                address = np.array([int(dut.write__addr.value)])
                low, high = address, None
                if dut.write__wide.value == 1:
                    low, high = self.machine.tokens.pair(address)
                self.tokens[low] = self._bytes(dut.write__lo)
                if high is not None:
                    self.tokens[high] = self._bytes(dut.write__hi)
                self.grants.append(bench.now())
            await FallingEdge(dut.clk)

    def _bytes(self, handle):
        return np.frombuffer(int(handle.value).to_bytes(self.arch.depth, "little"), np.uint8)

    async def _index_memory(self):
        seen = []
        cocotb.start_soon(bench.pipe_get(self.dut, "index", seen))
        while True:
            await FallingEdge(self.dut.clk)
            while seen:
                fields = bench.unpack(index_write(self.arch), seen.pop(0)[1])
                self.index[fields["addr"]] = fields["data"]

    async def _dram_reads(self):
        while True:
            request, = await bench.stream_get(self.dut, "read_memory__request", 1)
            fields, k = bench.unpack(MEMORY_REQUEST, request), self.arch.depth
            words = self.input[fields["address"] :][: fields["words"] * k].reshape(-1, k)
            await bench.stream_put(
                self.dut, "read_memory__data",
                [int.from_bytes(word.tobytes(), "little") for word in words], gap=self.stall,
            )

    async def _dram_writes(self):
        dut, k = self.dut, self.arch.depth
        while True:
            request, = await bench.stream_get(dut, "write_memory__request", 1, stall=self.stall)
            fields = bench.unpack(MEMORY_REQUEST, request)
            words = await bench.stream_get(
                dut, "write_memory__data", fields["words"], stall=self.stall
            )
            data = b"".join(word.to_bytes(k, "little") for word in words)
            self.output[fields["address"] :][: len(data)] = np.frombuffer(data, np.uint8)
            await bench.cycles(dut, random.randrange(20))
            dut.write_memory__done.value = 1
            await bench.cycles(dut, 1)
            dut.write_memory__done.value = 0

    async def _watch(self):
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            fields = bench.unpack(MOVER_PROGRESS, int(self.dut.progress.value))
            state = (fields["seq"], fields["words"])
            if not self.progress or self.progress[-1][1:] != state:
                self.progress.append((bench.now(), *state))

    async def wait(self, name, value):
        await bench.until(self.dut, lambda: int(getattr(self.dut, name).value) == value)


def command(op, *, wait_seq=None):
    """What the dispatcher makes of an instruction, with base addresses of zero."""
    fields = {"opcode": op.opcode, "address": op.offset, "wait": wait_seq is not None,
              "wait_seq": wait_seq or 0}
    if op.opcode is Opcode.LOAD_INDEX:
        fields |= {"addr": op.base, "rows": 1, "words": op.count}
    else:
        fields |= {n: op.values[n] for n in ("addr", "stride", "rows", "words", "wide")}
    return bench.pack(MOVE_COMMAND, fields)


def random_move(arch, opcode, slot, slots):
    """A LOAD or STORE of any shape; its DRAM block is one of ``slots`` that do not overlap."""
    k = arch.depth
    while True:
        wide, rows = random.randint(0, 1), random.choice((1, 2, random.randint(1, 30)))
        words = random.choice((1, random.randint(1, 9)))
        stride = words + random.randint(0, 3)
        limit = arch.token_words >> wide
        span = (rows - 1) * stride + words
        if span <= limit and rows * words * (1 + wide) * k <= SIZE // slots:
            break
    return isa.make(
        opcode, region=Region.INPUT if opcode is Opcode.LOAD else Region.OUTPUT,
        offset=slot * (SIZE // slots), addr=random.randint(0, limit - span), stride=stride,
        rows=rows, words=words, wide=wide,
    )


def golden(world, ops):
    image = b"".join(isa.pack(op) for op in [*ops, isa.make(Opcode.END)])
    world.machine.index[:] = world.index
    return world.machine.run(
        np.frombuffer(image, np.uint8), len(ops) + 1, world.input, len(world.output)
    )


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def moves(dut, stall):
    """Loads and index loads, then stores; memories as the golden machine leaves them."""
    await bench.start(dut)
    world = World(dut, stall=stall)
    arch = world.arch
    loads = [random_move(arch, Opcode.LOAD, slot, 16) for slot in range(10)]
    full = arch.depth // formats.INDEX_BYTES * random.randint(1, 4)   # of words, to the last entry
    for count in (1, full, full - 1, random.randint(1, arch.index_entries)):
        loads.insert(random.randrange(len(loads)), isa.make(
            Opcode.LOAD_INDEX, region=Region.INPUT, offset=arch.depth * random.randrange(500),
            base=random.randint(0, arch.index_entries - count), count=count,
        ))
    golden(world, loads)
    await bench.stream_put(dut, "loads", [command(op) for op in loads], gap=stall)
    await bench.until(dut, lambda: world.progress[-1][1:] == (len(loads), 0))
    await bench.cycles(dut, 2)
    assert dut.loads_idle.value == 1
    assert np.array_equal(world.tokens, world.machine.tokens.bytes)
    assert np.array_equal(world.index, world.machine.index)
    check_progress(world, loads)

    stores = [random_move(arch, Opcode.STORE, slot, 16) for slot in range(16)]
    expected = golden(world, stores)
    await bench.stream_put(dut, "stores", [command(op) for op in stores], gap=stall)
    await world.wait("stores_idle", 1)
    assert int(dut.stores_done.value) == len(stores)
    assert np.array_equal(world.output, expected)


def check_progress(world, loads):
    """Progress goes through every element of every load, never ahead of its grant."""
    expected, needed, total = [(0, 0)], [0], 0
    for number, op in enumerate(loads):
        elements = op.rows * op.words if op.opcode is Opcode.LOAD else 0
        for i in range(1, elements):
            expected.append((number, i))
            needed.append(total + i)
        total += elements
        expected.append((number + 1, 0))
        needed.append(total)
    assert [state[1:] for state in world.progress] == expected
    for (cycle, *_), count in zip(world.progress, needed, strict=True):
        assert sum(grant < cycle for grant in world.grants) >= count


@cocotb.test()
async def rate(dut):
    """One word of K bytes every cycle in both directions, narrow and wide."""
    await bench.start(dut)
    world = World(dut, stall=0.0)
    for wide in (0, 1):
        shape = {"rows": 20, "words": 5, "stride": 5, "wide": wide, "addr": 0, "offset": 0}
        started = len(world.grants)
        load = isa.make(Opcode.LOAD, region=Region.INPUT, **shape)
        await bench.stream_put(dut, "loads", [command(load)] * 3)
        await bench.until(dut, lambda: len(world.grants) == started + 300)  # noqa: B023
        span = world.grants[-1] - world.grants[started] + 1
        assert span <= 300 * (1 + wide) + 3 * 8, span

        store = isa.make(Opcode.STORE, region=Region.OUTPUT, **shape)
        await bench.stream_put(dut, "stores", [command(store)])
        first = bench.now()
        taken = []
        valid, ready = dut.write_memory__data__valid, dut.write_memory__data__ready
        for _ in range(400):
            await ReadOnly()
            if valid.value == 1 and ready.value == 1:
                taken.append(bench.now() - first)
            await FallingEdge(dut.clk)
        assert len(taken) == 100 * (1 + wide)
        assert taken[-1] - taken[0] + 1 == len(taken)


@cocotb.test()
async def waits(dut):
    """Nothing moves before the MATMUL that a command names has finished, across the wrap."""
    await bench.start(dut)
    world = World(dut, stall=0.0)
    load = isa.make(Opcode.LOAD, region=Region.INPUT, addr=3, rows=2, words=1, stride=1)
    store = isa.make(Opcode.STORE, region=Region.OUTPUT, addr=3, rows=2, words=1, stride=1)
    grants = stores = 0
    for seq in (0, 5, 127, 128, 250, 255, 0):
        dut.epilogue.value = bench.pack(EPILOGUE_PROGRESS, {"seq": (seq - 3) % 256})
        await bench.stream_put(dut, "loads", [command(load, wait_seq=seq)])
        await bench.stream_put(dut, "stores", [command(store, wait_seq=seq)])
        for done in (seq - 3, seq - 1, seq):
            dut.epilogue.value = bench.pack(EPILOGUE_PROGRESS, {"seq": done % 256})
            await bench.cycles(dut, 40)
            assert len(world.grants) == grants, f"moved before MATMUL {seq} had finished"
            assert int(dut.stores_done.value) == stores
            assert dut.loads_idle.value == 0
            assert dut.stores_idle.value == 0
        dut.epilogue.value = bench.pack(EPILOGUE_PROGRESS, {"seq": (seq + 1) % 256})
        grants, stores = grants + 2, stores + 1
        await bench.until(dut, lambda: len(world.grants) == grants)  # noqa: B023
        await world.wait("stores_idle", 1)
        assert int(dut.stores_done.value) == stores
