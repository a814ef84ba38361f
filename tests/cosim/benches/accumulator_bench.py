"""Cocotb bench of the accumulators."""

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats
from vitrify.cosim import bench
from vitrify.rtl import interfaces
from vitrify.rtl.array.layout import dot_bits, sums_layout


def sums(arch, extreme):
    """C dot products of one tile."""
    bits, count = dot_bits(arch), arch.sums(arch.width)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if extreme:
        return [random.choice([low, high])] * count
    return [random.choice([0, -1, random.randint(low, high)]) for _ in range(count)]


def c_tile(arch, rows, k_tiles, extreme=False, paired=0):
    """Rows of one c tile (or two, if ``paired``) in order, as fields, and the sums of every row."""
    layout = sums_layout(arch)
    words, totals = [], [[0] * arch.sums(arch.width) for _ in range(rows)]
    more = {"nibbles": random.getrandbits(1)} if arch.sees_nibbles else {}
    more |= {"paired": paired} if arch.nibble_tiles > 1 else {}
    for tile in range(k_tiles):
        for row in range(rows):
            values = sums(arch, extreme)
            totals[row] = [a + b for a, b in zip(totals[row], values, strict=True)]
            words.append(bench.pack(layout, {"data": values, "tag": {
                "row": row, "first": int(tile == 0), "last": int(tile == k_tiles - 1),
                "final": int(row == rows - 1), "swap": int(row == 0),
                "sum": random.getrandbits(1), "sum_bank": random.getrandbits(1), **more}}))
        # passes shorter than MIN_PASS start no closer than that
        words.extend([None] * max(0, interfaces.MIN_PASS - rows))
    return words, totals


async def put(dut, words, gap):
    """Drive words; None is an idle cycle."""
    for word in words:
        while word is not None and random.random() < gap:
            await FallingEdge(dut.clk)
        if word is None:
            await FallingEdge(dut.clk)
        else:
            await bench.pipe_put(dut, "i", [word])


def progress(dut):
    return bench.unpack(interfaces.DRAIN_PROGRESS, int(dut.drain_written.value))


class Reader:
    """Reads every drain row in the very cycle in which it counts as written."""

    def __init__(self, dut, lengths, steps):
        self.dut, self.lengths, self.steps, self.rows = dut, lengths, steps, []

    async def run(self):
        latency = bench.option("drain_latency")
        asked, tile, number, row = [], 0, 0, 0
        while len(self.rows) < sum(self.lengths):
            now = progress(self.dut)
            done = tile < len(self.lengths) and (
                (now["tile"] - number) % 256 != 0 or now["row"] > row)
            if done:
                self.dut.drain_addr.value = row
                row += 1
                if row == self.lengths[tile]:
                    number += self.steps[tile]
                    tile, row = tile + 1, 0
            else:
                self.dut.drain_addr.value = random.randrange(bench.arch().max_rows)
            asked.append(done)
            await FallingEdge(self.dut.clk)
            if len(asked) >= latency and asked[len(asked) - latency]:
                value = int(self.dut.drain_data.value)
                arch = bench.arch()
                self.rows.append(
                    bench.elements(value, arch.sums(arch.width), arch.sum_bits))


async def run(dut, plan, gap):
    """c tiles of (rows, k tiles, extreme); the reader follows at the earliest time."""
    arch = bench.arch()
    words, expected, steps = [], [], []
    for rows, k_tiles, extreme in plan:
        paired = random.randrange(arch.nibble_tiles)
        sent, totals = c_tile(arch, rows, k_tiles, extreme, paired)
        words += sent
        expected += totals
        steps.append(1 + paired)
    reader = Reader(dut, [rows for rows, _, _ in plan], steps)
    # tiles count from reset on
    reading = cocotb.start_soon(reader.run())
    await put(dut, words, gap)
    await bench.finish(reading, limit=1000)
    assert reader.rows == expected
    assert progress(dut) == {"tile": sum(steps) % 256, "row": 0}


@cocotb.test()
async def full_rate(dut):
    await bench.start(dut)
    rows = bench.arch().max_rows
    await run(dut, [(rows, 3, False), (rows, 1, False), (rows, 1, False), (rows, 5, False)], 0.0)


@cocotb.test()
async def gaps_and_one_row(dut):
    await bench.start(dut)
    await run(dut, [(random.choice([1, 2, 7, 8, 13]), random.randint(1, 4), False)
                    for _ in range(12)], 0.4)


@cocotb.test()
async def as_wide_as_it_gets(dut):
    """The longest dot product of extreme values stays within its bits."""
    await bench.start(dut)
    arch, depth = bench.arch(), bench.arch().depth
    tiles = min(64, (1 << min(arch.stored_sums) - 1) // (1 << dot_bits(arch) - 1))
    assert tiles * depth <= formats.MAX_DEPTH
    await run(dut, [(8, tiles, True)], 0.0)


@cocotb.test()
async def a_row_counts_after_the_stated_latency(dut):
    await bench.start(dut)
    words, _ = c_tile(bench.arch(), 8, 1)
    start = bench.now()
    cocotb.start_soon(bench.pipe_put(dut, "i", words))
    counted = []
    for _ in range(8 + bench.option("latency") + 2):
        await FallingEdge(dut.clk)
        await ReadOnly()
        counted.append(progress(dut))
    first = next(i for i, now in enumerate(counted) if now["row"] == 1)
    assert start + 1 + first == start + bench.option("latency")
    assert counted[first + 6] == {"tile": 0, "row": 7}
    assert counted[first + 7] == {"tile": 1, "row": 0}
