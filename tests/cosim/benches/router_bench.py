"""The router against the golden machine's queues; token and index memory are played here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats, isa, memmap
from vitrify.arch.isa import Opcode
from vitrify.cosim import bench
from vitrify.golden.experts import Experts
from vitrify.golden.memory import TokenMemory
from vitrify.golden.ops import routing
from vitrify.rtl import interfaces


@dataclass
class Route:
    """A ROUTE with its logits ``[rows, experts]``."""

    logits: np.ndarray
    choices: int
    normalise: int
    base: int = 0
    room: int = 0
    joins: int = 0


class World:
    """Memories around the router, and what golden leaves in them."""

    def __init__(self, dut, *, stall: float = 0.0) -> None:
        self.dut, self.arch, self.stall = dut, bench.arch(), stall
        self.random = bench.rng(5)
        self.tokens = TokenMemory(self.arch)
        self.golden = Experts(self.arch, np.zeros(self.arch.index_entries, np.int64))
        self.index: dict[int, tuple[int, int, int]] = {}
        self.reads: deque[tuple[int, int] | None] = deque([None] * interfaces.READ_LATENCY)
        self.done = 0

    async def memories(self) -> None:
        """One cycle after another, forever."""
        dut = self.dut
        size = self.arch.depth
        while True:
            dut.read__ready.value = int(self.random.random() >= self.stall)
            dut.write__ready.value = int(self.random.random() >= self.stall)
            answer = self.reads.popleft()
            for half, name in enumerate(("lo", "hi")):
                noise = int.from_bytes(self.random.bytes(size), "little")
                getattr(dut, f"read__{name}").value = answer[half] if answer else noise
            await ReadOnly()
            taken = None
            if dut.read__valid.value == 1 and dut.read__ready.value == 1:
                assert dut.read__wide.value == 1
                words = memmap.pair_banks(self.arch, int(dut.read__addr.value))
                taken = tuple(
                    int.from_bytes(self.tokens.bytes[word].tobytes(), "little") for word in words
                )
            # Granted now, on the port READ_LATENCY cycles later.
            self.reads.append(taken)
            if dut.write__valid.value == 1 and dut.write__ready.value == 1:
                gate = bench.unpack(interfaces.GATE, int(dut.write__gate.value))
                at = int(dut.write__addr.value)
                assert at not in self.index, f"entry {at} was written twice"
                self.index[at] = (int(dut.write__row.value), gate["weight"], gate["first"])
            await FallingEdge(dut.clk)

    async def route(self, route: Route) -> int:
        """Run one ROUTE, compare; returns its cycles."""
        dut, arch = self.dut, self.arch
        rows, experts = route.logits.shape
        words = memmap.words(arch, experts)
        stride = words + int(self.random.integers(3))
        src = int(self.random.integers(0, arch.bank_words - rows * stride))
        self.tokens.bytes[:] = self.random.integers(0, 256, self.tokens.bytes.shape)
        address = src + np.arange(rows)[:, None] * stride + np.arange(words)
        self.tokens.write16(address, route.logits.astype(np.int16))
        fields = {
            "src_addr": src, "src_stride": stride, "rows": rows, "experts": experts,
            "choices": route.choices, "normalise": route.normalise, "base": route.base,
            "room": route.room, "joins": route.joins,
        }
        before = self.golden.count.copy()
        self.golden.route(
            isa.make(Opcode.ROUTE, wait_distance=1, **fields), self.tokens
        )
        self.index = {}
        begun = bench.now()
        await bench.stream_put(dut, "command", [bench.pack(
            interfaces.ROUTE_COMMAND, {**fields, "wait_seq": 0}
        )])
        self.done = (self.done + 1) % 256
        await bench.until(dut, lambda: int(dut.done.value) == self.done, limit=200_000)
        cycles = bench.now() - begun
        self.compare(before * route.joins)
        await self.look_up()
        return cycles

    async def look_up(self) -> None:
        """Every expert's queue is where golden has it."""
        dut = self.dut
        for expert in range(self.arch.experts):
            dut.expert.value = expert
            await bench.cycles(dut, 1)
            found = bench.unpack(interfaces.QUEUE, int(dut.queue.value))
            assert found["count"] == self.golden.count[expert], f"count of expert {expert}"
            if found["count"]:
                assert found["start"] == self.golden.start[expert], f"start of expert {expert}"

    def compare(self, before: np.ndarray) -> None:
        """Entries behind those that every queue had ``before`` have been written, and no others."""
        golden = self.golden
        entries = [
            start + i for start, had, count in zip(golden.start, before, golden.count, strict=True)
            for i in range(had, count)
        ]
        assert sorted(self.index) == sorted(entries)
        for at in entries:
            want = (int(golden._index[at]), *golden.gates[at].tolist())
            assert self.index[at] == want, f"entry {at} is {self.index[at]}, golden has {want}"


def _routes(random: np.random.Generator, count: int) -> list[Route]:
    """Degenerate ones first, then at random."""
    arch = bench.arch()
    low, high, most = -(2**15), 2**15 - 1, arch.experts
    kinds = [
        lambda shape: np.full(shape, high),
        lambda shape: np.full(shape, low),
        lambda shape: random.choice([low, high], shape),
        lambda shape: random.choice([-3, 0, 3], shape),
        lambda shape: np.tile(1000 * (np.arange(shape[1]) == shape[1] - 1), (shape[0], 1)),
        lambda shape: 1000 * (np.arange(shape[1]) == np.arange(shape[0])[:, None] % shape[1]),
        lambda shape: random.integers(low, high + 1, shape),
        lambda shape: random.normal(0, 600, shape).round(),
    ]
    routes = []
    for i in range(count):
        experts = most if i < len(kinds) else int(random.integers(1, most + 1))
        choices = int(random.integers(1, min(experts, formats.MAX_CHOICES) + 1))
        room = arch.index_entries // choices
        rows = min(room, 1 if random.random() < 0.15 else int(random.integers(1, 24)))
        kind = kinds[i] if i < len(kinds) else kinds[int(random.integers(len(kinds)))]
        base = int(random.integers(0, arch.index_entries - rows * choices + 1))
        routes.append(Route(kind((rows, experts)), choices, int(random.integers(2)), base))
    return routes


async def _start(dut, stall: float) -> World:
    world = World(dut, stall=stall)
    await bench.start(dut)
    dut.finished_matmuls.value = 1
    cocotb.start_soon(world.memories())
    await bench.cycles(dut, 1)
    return world


@cocotb.test()
async def many_routes(dut):
    """Degenerate and random logits with a busy memory; before them all queues are empty."""
    world = await _start(dut, 0.3)
    await world.look_up()
    for route in _routes(world.random, 30):
        await world.route(route)


@cocotb.test()
async def joined(dut):
    """Parts of any size fill the queues of one ROUTE, as one ROUTE would that has all rows."""
    world = await _start(dut, 0.3)
    arch, random = world.arch, world.random
    for _ in range(12):
        experts = int(random.integers(1, arch.experts + 1))
        choices = int(random.integers(1, min(experts, formats.MAX_CHOICES) + 1))
        parts = [int(n) for n in random.integers(1, 8, int(random.integers(2, 5)))]
        first = min(parts[0], (arch.index_entries - experts) // choices)
        room = min(sum(parts[1:]), (arch.index_entries - first * choices) // experts)
        base = int(random.integers(0, arch.index_entries - first * choices - experts * room + 1))
        parts, left = [first], room
        while left:
            parts.append(int(random.integers(1, left + 1)))
            left -= parts[-1]
        logits = random.choice([-300, 0, 300], (sum(parts), experts))
        starts = np.cumsum([0, *parts])
        for i, rows in enumerate(parts):
            own = logits[starts[i] : starts[i] + rows]
            # What a ROUTE that joins says of room and base does not matter.
            more = {"joins": 1, "base": 3, "room": 5} if i else {"base": base, "room": room}
            await world.route(Route(own, choices, 1, **more))
        whole = routing.queues(*routing.gate(logits, choices, normalise=True), experts)
        for expert in range(experts):
            start, count = (int(part[expert]) for part in (world.golden.start, world.golden.count))
            assert count == whole.count[expert]
            np.testing.assert_array_equal(
                world.golden._index[start : start + count],
                whole.row[whole.start[expert] : whole.start[expert] + count],
            )


@cocotb.test()
async def full_rate(dut):
    """Rows follow each other as fast as the docs say."""
    world = await _start(dut, 0.0)
    arch = world.arch
    for experts in sorted({1, min(8, arch.experts), arch.experts}):
        for choices in range(1, min(experts, formats.MAX_CHOICES) + 1):
            for normalise in (0, 1):
                rows = min(24, arch.index_entries // choices)
                logits = world.random.integers(-9000, 9000, (rows, experts))
                groups = -(-experts // interfaces.ROUTE_LANES)
                row = max(groups + 2, 2 * choices + 2)
                cycles = await world.route(Route(logits, choices, normalise))
                most = rows * row + 2 * arch.experts + rows * choices + 50
                dut._log.info("%d of %d: %d cycles of %d", choices, experts, cycles, most)
                assert cycles <= most
                room = min(8, (arch.index_entries - choices) // experts)
                await world.route(Route(logits[:1], choices, normalise, room=room))
                cycles = await world.route(Route(logits[:room], choices, normalise, joins=1))
                # The weights of the last row pass the groups of its logits once more.
                assert cycles <= room * (row + choices) + groups + 50


@cocotb.test()
async def waits(dut):
    """A ROUTE does not begin before its MATMUL is finished, across the numbers' wrap."""
    world = await _start(dut, 0.0)
    command = bench.pack(interfaces.ROUTE_COMMAND, {
        "rows": 1, "experts": 1, "choices": 1, "wait_seq": 250,
    })
    for early in (200, 250):
        dut.finished_matmuls.value = early
        dut.command__payload.value, dut.command__valid.value = command, 1
        await bench.cycles(dut, 20)
        assert dut.command__ready.value == 0
    dut.finished_matmuls.value = 3
    await bench.stream_put(dut, "command", [command])
    world.done += 1
    await bench.until(dut, lambda: int(dut.done.value) == world.done)
