"""Cocotb bench of the matrix unit."""

import random

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from vitrify.arch import formats
from vitrify.arch.memmap import stored_thirds
from vitrify.cosim import bench
from vitrify.golden.ops.matmul import matmul
from vitrify.rtl import interfaces
from vitrify.rtl.array.layout import sums_layout
from vitrify.rtl.array.matrix import thirds_word
from vitrify.rtl.array.thirds import LOWEST


def operand(arch, tile):
    """K operands: int8 activations or, where they may be, softmax weights, often at an edge."""
    signed = arch.nibble_thirds and tile.nibbles
    low, high = (-128, 127) if signed else random.choice([(-128, 127), (0, 255)])
    return [random.choice([low, high, 0, random.randint(low, high), random.randint(low, high)])
            for _ in range(arch.depth)]


class Tile(np.ndarray):
    """C x K stationary bytes; they may be pairs of ``nibbles``."""

    nibbles = 0


def stationary(arch, extreme):
    """A random tile."""
    tile = _bytes(arch, extreme).view(Tile)
    tile.nibbles = random.randrange(1 + arch.sees_nibbles)
    if tile.nibbles:
        # Every byte is two of them.
        edges = [-0x78, -0x80, 0x77, 0x78, 0x07, 0x70] if extreme else range(-128, 128)
        tile[:] = random.choice(edges) if extreme else [
            random.choices(edges, k=arch.depth) for _ in range(arch.width)]
        if arch.nibble_thirds:
            # Two odd columns find the same word.
            tile[3::4] = tile[1::4]
    return tile


def products(arch, operands, tile):
    """What the rows make of a tile: a sum of every column, of nibbles the low and the high ones."""
    rows = np.array([operands])
    if tile.nibbles:
        low, high = tile << 4 & 0xFF, tile >> 4
        low = (low ^ 0x80) - 0x80 >> 4
        if arch.nibble_thirds:
            # Of an odd column's byte one half; the other one is its neighbour's.
            third = np.where(np.arange(1, arch.width, 2)[:, None] & 2, high[1::2], low[1::2])
            fields = [matmul(rows, part)[0] for part in (low[::2], third, high[::2])]
            return np.stack(fields, axis=1).reshape(-1)
        return np.stack([matmul(rows, low)[0], matmul(rows, high)[0]], axis=1).reshape(-1)
    return matmul(rows, np.asarray(tile))[0]


def found(arch, tile, sums):
    """The same of the unit's output, where a byte's product is divided among two halves."""
    if not arch.sees_nibbles or tile.nibbles:
        return sums
    if arch.nibble_thirds:
        return [part for low, high, middle in zip(sums[::3], sums[1::3], sums[2::3], strict=True)
                for part in (low + (middle << LOWEST), high)]
    return [low + (high << formats.NIBBLE_SHIFT)
            for low, high in zip(sums[::2], sums[1::2], strict=True)]


def _bytes(arch, extreme):
    if extreme:
        value = random.choice([-127, 127])
        return np.full((arch.width, arch.depth), value)
    pick = [-127, 127, 0, -1, 1]
    return np.array([[random.choice([*pick, *(random.randint(-127, 127) for _ in range(5))])
                      for _ in range(arch.depth)] for _ in range(arch.width)])


def tile_words(arch, tile, columns):
    """Payloads of ``tile_write`` for a tile, in any order; ``columns`` 2, 4: so many columns."""
    layout, k = interfaces.tile_write(arch), arch.depth

    def word(low, high=None, **fields):
        if arch.stored_weights:
            fields |= {"high": bench.vector(low if high is None else high)}
        if arch.tile_quads and "more" not in fields:
            fields["more"] = bench.vector(low) | fields["high"] << 8 * k
        return bench.pack(layout, fields | {"data": bench.vector(low)})

    if arch.nibble_thirds and tile.nibbles:
        if columns == 2 and arch.stored_nibbles:
            column = {thirds_word(arch, c): c for c in range(arch.width) if c % 4 != 3}
            order = [tile[column[w]] for w in stored_thirds(arch.width)]
            return [word(low, high, index=i, nibbles=1, pair=1)
                    for i, (low, high) in enumerate(zip(order[::2], order[1::2], strict=True))]
        return [word(tile[c], index=thirds_word(arch, c), nibbles=1)
                for c in range(arch.width) if c % 4 != 3]
    if columns == 4 and arch.tile_quads:
        return [word(tile[c], tile[c + 1], index=c // 4, pair=random.getrandbits(1), quad=1,
                     more=bench.vector(tile[c + 2]) | bench.vector(tile[c + 3]) << 8 * k)
                for c in range(0, arch.width, 4)]
    if columns == 2 and arch.stored_weights:
        return [word(tile[c], tile[c + 1], index=c // 2, pair=1) for c in range(0, arch.width, 2)]
    if columns != 1:
        return [word(tile[c], index=c) for c in range(arch.width)]
    words = []
    for depth in range(k):
        for group in range(max(1, arch.width // k)):
            column = tile[group * k : (group + 1) * k, depth]
            # what lies beyond C columns of a narrow tile must not matter
            rest = [random.randint(-128, 127) for _ in range(k - len(column))]
            words.append(word([*column, *rest], columns=1, index=depth, group=group))
    return words


def mode(arch, tile):
    """What a row's tag says of its tile."""
    paired = {"paired": random.getrandbits(1)} if arch.nibble_tiles > 1 else {}
    return {"nibbles": tile.nibbles, **paired} if arch.sees_nibbles else {}


class Check:
    """Sends passes of rows and tiles at their earliest times, and judges what comes out."""

    def __init__(self, dut):
        self.dut, self.arch = dut, bench.arch()
        self.seen, self.sent = [], []
        cocotb.start_soon(bench.pipe_get(dut, "o", self.seen))

    async def tile(self, tile, columns, gap):
        words = tile_words(self.arch, tile, columns)
        random.shuffle(words)
        await bench.pipe_put(self.dut, "tile", words, gap=gap)

    async def rows(self, tile, count, gap):
        layout = interfaces.operand_layout(self.arch)
        for index in range(count):
            fields = {"data": operand(self.arch, tile), "tag": {
                "row": random.randrange(self.arch.max_rows), "first": random.getrandbits(1),
                "last": random.getrandbits(1), "final": random.getrandbits(1),
                "swap": int(index == 0), "sum": random.getrandbits(1),
                "sum_bank": random.getrandbits(1), **mode(self.arch, tile)}}
            # the row's own start, before a gap, is what tile writes are timed by
            await bench.pipe_put(self.dut, "i", [bench.pack(layout, fields)])
            self.sent.append((bench.now() - 1, fields, tile))
            while random.random() < gap:
                await FallingEdge(self.dut.clk)

    async def judge(self):
        await bench.cycles(self.dut, bench.option("latency") + 2)
        out = sums_layout(self.arch)
        assert len(self.seen) == len(self.sent)
        for (start, fields, tile), (cycle, payload) in zip(self.sent, self.seen, strict=True):
            result = bench.unpack(out, payload)
            expected = products(self.arch, fields["data"], tile).tolist()
            assert found(self.arch, tile, result["data"]) == expected, (start, fields, tile)
            assert result["tag"] == fields["tag"]
            assert cycle == start + bench.option("latency")
        self.seen.clear()
        self.sent.clear()


async def passes(dut, count, *, columns, gap, rows):
    """Passes whose next tile is written while they run."""
    check = Check(dut)
    tile = stationary(check.arch, False)
    await check.tile(tile, columns(), gap)
    await bench.cycles(dut, 1)
    for index in range(count):
        streaming = cocotb.start_soon(check.rows(tile, rows(), gap))
        # A write at ``swap_latency`` from the row with swap belongs to the next tile; the row
        # is being put in this very cycle, and writes cannot come before it here.
        following = stationary(check.arch, index % 4 == 0)
        await check.tile(following, columns(), gap)
        await streaming
        # The tile's last write lies one cycle back; the next row may come when it is in time.
        await bench.cycles(dut, 1 + bench.option("swap_latency") + 1)
        tile = following
    await check.judge()


@cocotb.test()
async def full_rate(dut):
    await bench.start(dut)
    await passes(dut, 8, columns=lambda: 0, gap=0.0, rows=lambda: 20)


@cocotb.test()
async def across_the_columns(dut):
    await bench.start(dut)
    await passes(dut, 6, columns=lambda: 1, gap=0.0, rows=lambda: 40)


@cocotb.test()
async def pairs_of_columns(dut):
    await bench.start(dut)
    await passes(dut, 6, columns=lambda: 2, gap=0.0, rows=lambda: 40)


@cocotb.test()
async def four_columns(dut):
    await bench.start(dut)
    await passes(dut, 6, columns=lambda: 4, gap=0.0, rows=lambda: 40)


@cocotb.test()
async def gaps_and_short_passes(dut):
    await bench.start(dut)
    await passes(dut, 20, columns=lambda: random.choice([0, 1, 2, 4]), gap=0.4,
                 rows=lambda: random.choice([1, 2, 9]))


@cocotb.test()
async def the_swap_divides_rows_and_writes(dut):
    """Rows just before a swap see the old tile, and the earliest write the shadow after it."""
    await bench.start(dut)
    check = Check(dut)
    old, new = stationary(check.arch, True), stationary(check.arch, False)
    await check.tile(old, 0, 0.0)
    await bench.cycles(dut, 4)
    await check.rows(old, 5, 0.0)

    async def writes():
        await check.tile(new, 0, 0.0)
        # The next tile follows at once: its first write comes swap_latency after the swap row.
        await check.tile(old, 0, 0.0)

    writing = cocotb.start_soon(writes())
    # rows up to the swap; the last write of ``new`` is the last that may still belong to it
    lead = len(tile_words(check.arch, new, 0)) - bench.option("swap_latency")
    layout = interfaces.operand_layout(check.arch)
    for _ in range(lead):
        fields = {"data": operand(check.arch, old), "tag": {
            "row": 1, "first": 0, "last": 0, "final": 0, "swap": 0, "sum": 0, "sum_bank": 0,
            **mode(check.arch, old)}}
        await bench.pipe_put(dut, "i", [bench.pack(layout, fields)])
        check.sent.append((bench.now() - 1, fields, old))
    await check.rows(new, 12, 0.0)
    await writing
    await bench.cycles(dut, 2)
    await check.rows(old, 3, 0.0)
    await check.judge()
