"""Cocotb bench of the helpers' own test."""

import random

import cocotb

from vitrify.cosim import bench
from vitrify.rtl import interfaces


@cocotb.test()
async def payloads_round_trip(dut):
    layout = interfaces.transform_input(bench.arch())
    fields = {
        "lo": 3, "hi": 5, "mode": 2, "stat": {"mean": -7, "shift": 9, "mantissa": 256}, "gain": 1,
        "lanes": 8, "tag": {"row": 31, "first": 1, "last": 0, "final": 1, "swap": 0, "sum": 1,
                            "sum_bank": 1},
    }
    word = bench.pack(layout, fields)
    assert word == layout.const(fields).as_bits()
    assert bench.unpack(layout, word) == fields
    await bench.start(dut)


@cocotb.test()
async def pipe(dut):
    layout = interfaces.transform_input(bench.arch())
    words = [random.getrandbits(layout.size) for _ in range(50)]
    await bench.start(dut)
    seen = []
    cocotb.start_soon(bench.pipe_get(dut, "o", seen))
    first = bench.now()
    await bench.pipe_put(dut, "i", words)
    await bench.pipe_put(dut, "i", words, gap=0.5)
    await bench.cycles(dut, 3)
    assert [word for _, word in seen] == words + words
    assert [cycle for cycle, _ in seen[:50]] == list(range(first + 1, first + 51))


@cocotb.test()
async def stream(dut):
    await bench.start(dut)
    for gap, stall in ((0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.3, 0.3)):
        words = [random.getrandbits(8) for _ in range(60)]
        put = cocotb.start_soon(bench.stream_put(dut, "s", words, gap=gap))
        got = await bench.finish(bench.stream_get(dut, "t", len(words), stall=stall), limit=1000)
        assert got == words
        await put
