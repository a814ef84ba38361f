"""Cocotb bench of the operand transform."""

import random

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats
from vitrify.arch.isa import Transform
from vitrify.cosim import bench
from vitrify.golden.ops import layernorm, softmax
from vitrify.rtl import interfaces

#: Residuals, logits and bytes where something changes.
_EDGES = [-32768, -32767, -4097, -4096, -257, -256, -129, -128, -127, -33, -32, -5, -4, -1, 0, 1, 3,
          4, 31, 32, 126, 127, 128, 255, 256, 4095, 4096, 32766, 32767]


def expected(fields, depth):
    """K results by the golden kernels."""
    low = np.array(bench.elements(fields["lo"], depth), np.int64)
    high = np.array(bench.elements(fields["hi"], depth), np.int64)
    gain = np.array(bench.elements(fields["gain"], depth, signed=False), np.int64)
    mean, shift, mantissa = (
        np.array([fields["stat"][name]], np.int64) for name in ("mean", "shift", "mantissa"))
    match fields["mode"]:
        case Transform.NONE:
            result = low
        case Transform.PRODUCT:
            one = low[None].astype(np.int8), high[None].astype(np.int8)
            result = layernorm.product(*one, int(shift[0]), int(mantissa[0]))[0]
        case Transform.EXP2:
            result = softmax.exp2(low[None].astype(np.int8), mean)[0]
        case _:
            x = (high << 8 | low & 0xFF)[None].astype(np.int16)
            result = layernorm.apply(x, mean, shift, mantissa, gain)[0]
    return np.where(np.arange(depth) < fields["lanes"], result, 0).tolist()


def word(arch, mode, *, row=0, first=1, bank=0):
    """Fields of a word that is random in what the mode looks at."""
    k = arch.depth
    pick = random.choice
    if mode == Transform.EXP2:
        # mostly what an epilogue leaves: a maximum near the logits; sometimes anything at all
        mean = pick([random.randint(-32, 31), 31, -32, random.randint(-(1 << 17), 1 << 16)])
    else:
        mean = pick([0, random.randint(-(1 << 17), (1 << 17) - 1), random.randint(-200, 200),
                     -(1 << 17), (1 << 17) - 1])
    if mode == Transform.PRODUCT:
        mean = 0
    x = [pick(_EDGES) if random.random() < 0.4 else
         (mean >> 2) + random.randint(-500, 500) if random.random() < 0.5 else
         random.randint(-32768, 32767) for _ in range(k)]
    x = [max(-32768, min(32767, v)) for v in x]
    tag = {"row": row, "first": first, "last": random.getrandbits(1),
           "final": random.getrandbits(1), "swap": random.getrandbits(1),
           "sum": int(mode == Transform.EXP2), "sum_bank": bank}
    return {
        "lo": bench.vector(v & 0xFF for v in x), "hi": bench.vector(v >> 8 for v in x),
        "mode": mode,
        "stat": {
            "mean": mean,
            "shift": pick([0, 1, 6, 7, 8, 18, 31, random.randint(0, 31), random.randint(5, 10)]),
            "mantissa": pick([0, 256, 511, random.randint(256, 511)]),
        },
        "gain": bench.vector(pick([0, 1, 255, random.randint(0, 255)]) for _ in range(k)),
        "lanes": pick([0, 1, k - 1, k, k]), "tag": tag,
    }


async def run(dut, arch, words, gap):
    """Send words; check every result and its time."""
    layout, out = interfaces.transform_input(arch), interfaces.operand_layout(arch)
    sent, seen = [], []

    async def watch():
        while True:
            await ReadOnly()
            if dut.i__valid.value == 1:
                sent.append(bench.now())
            await FallingEdge(dut.clk)

    watcher = cocotb.start_soon(watch())
    getter = cocotb.start_soon(bench.pipe_get(dut, "o", seen))
    await bench.pipe_put(dut, "i", [bench.pack(layout, fields) for fields in words], gap=gap)
    await bench.cycles(dut, bench.option("latency") + 2)
    watcher.cancel()
    getter.cancel()
    assert [cycle - bench.option("latency") for cycle, _ in seen] == sent
    assert len(seen) == len(words)
    for fields, (_, payload) in zip(words, seen, strict=True):
        result = bench.unpack(out, payload)
        assert result["data"] == expected(fields, arch.depth), fields
        assert result["tag"] == fields["tag"]


@cocotb.test()
async def modes(dut):
    arch = bench.arch()
    await bench.start(dut)
    for gap in (0.0, 0.4):
        modes = [mode for mode in Transform if mode != Transform.PRODUCT or arch.products]
        words = [word(arch, random.choice(modes), row=random.randrange(arch.max_rows))
                 for _ in range(600)]
        await run(dut, arch, words, gap)


@cocotb.test()
async def every_logit_and_maximum(dut):
    arch = bench.arch()
    await bench.start(dut)
    k = arch.depth
    words = []
    for maximum in range(-32, 32):
        for start in range(-128, 128, k):
            fields = word(arch, Transform.EXP2)
            fields["stat"]["mean"], fields["lanes"] = maximum, k
            fields["lo"] = bench.vector(range(start, start + k))
            words.append(fields)
    await run(dut, arch, words, 0.0)


@cocotb.test()
async def every_shift_and_byte(dut):
    arch = bench.arch()
    await bench.start(dut)
    k = arch.depth
    words = []
    for start in range(-128, 128, k):
        fields = word(arch, Transform.NONE)
        fields["lo"], fields["lanes"] = bench.vector(range(start, start + k)), k
        words.append(fields)
    for shift in range(32):
        for _ in range(8):
            fields = word(arch, Transform.NORM)
            fields["stat"]["shift"], fields["lanes"] = shift, k
            # just around the saturation of the shifted value
            scale = (1 << max(shift - formats.XHAT_FRAC, 0)) << formats.XNORM_BITS - 1
            fields["stat"]["mean"] = 0
            x = [max(-32768, min(32767, random.choice([-1, 1]) * (scale >> formats.MEAN_FRAC)
                                 + random.randint(-3, 3))) for _ in range(k)]
            fields["lo"] = bench.vector(v & 0xFF for v in x)
            fields["hi"] = bench.vector(v >> 8 for v in x)
            words.append(fields)
    await run(dut, arch, words, 0.0)


@cocotb.test()
async def every_sign_of_a_product(dut):
    arch = bench.arch()
    await bench.start(dut)
    words = []
    for low in (-128, -127, -1, 0, 1, 126, 127) if arch.products else ():
        for high in (-128, -127, -64, -1, 0, 1, 127):
            for shift in (4, 7, 8):
                fields = word(arch, Transform.PRODUCT)
                fields["stat"] |= {"shift": shift, "mantissa": random.choice([256, 301, 511])}
                fields["lo"] = bench.vector([low & 0xFF] * arch.depth)
                fields["hi"] = bench.vector([high & 0xFF] * arch.depth)
                words.append(fields | {"lanes": arch.depth})
    await run(dut, arch, words, 0.0)


@cocotb.test()
async def row_sums(dut):
    arch = bench.arch()
    await bench.start(dut)
    rows, tiles = interfaces.MIN_PASS, 5
    sums = {}
    for gap, bank in ((0.0, 0), (0.3, 1), (0.0, 0)):
        order = random.sample(range(arch.max_rows), rows)
        words = []
        for tile in range(tiles):
            for row in order:
                # words of other modes in between must not count
                mode = random.choice([Transform.NONE, Transform.EXP2, Transform.EXP2])
                fields = word(arch, mode, row=row, first=int(tile == 0), bank=bank)
                fields["tag"]["sum"] = 1
                words.append(fields)
                total = 0 if tile == 0 else sums[bank, row]
                sums[bank, row] = total + sum(v & 0xFF for v in expected(fields, arch.depth))
            words.append(word(arch, Transform.NONE, row=order[0], first=0, bank=bank))
        await run(dut, arch, words, gap)
        for (at, row), total in sums.items():
            dut.sum_addr.value = row | at * arch.max_rows
            await FallingEdge(dut.clk)
            assert int(dut.sum_data.value) == total, (at, row)


@cocotb.test()
async def a_row_sum_is_readable_in_time(dut):
    arch = bench.arch()
    await bench.start(dut)
    fields = word(arch, Transform.EXP2, row=arch.max_rows - 1, bank=1)
    fields["stat"]["mean"], fields["lanes"] = 31, arch.depth
    fields["lo"] = bench.vector([127] * arch.depth)
    dut.sum_addr.value = 2 * arch.max_rows - 1
    await bench.pipe_put(dut, "i", [bench.pack(interfaces.transform_input(arch), fields)])
    # One cycle has passed; the read that starts at sum_latency shows one cycle later.
    await bench.cycles(dut, bench.option("sum_latency") - 1)
    await FallingEdge(dut.clk)
    assert int(dut.sum_data.value) == 224 * arch.depth
