"""Row sums at full rate against the golden reciprocal."""

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats
from vitrify.cosim import bench
from vitrify.golden.ops import softmax
from vitrify.rtl.units.reciprocal import Reciprocal


def _totals():
    bits = formats.SOFTMAX_SUM_BITS
    edges = [0, 1, 127, 128, 129]
    for n in range(7, bits):
        edges += [(1 << n) + d for d in (-1, 0, 1)] + [(3 << n >> 1) + d for d in (-1, 0, 1)]
    edges += [(1 << bits) - 1, 224 * formats.MAX_DEPTH]
    random = bench.rng()
    spread = random.integers(0, 1 << bits, 4000) >> random.integers(0, bits - 7, 4000)
    return np.concatenate([np.array(edges), np.arange(100, 1100), spread])


@cocotb.test()
async def every_size_of_sum(dut):
    await bench.start(dut)
    totals = _totals()
    shift, multiplier = softmax.reciprocal(totals)
    fixed = bench.rng(1).integers(0, 4, len(totals)) == 0
    fixed_shift = bench.rng(2).integers(0, 16, len(totals))
    for cycle in range(len(totals) + Reciprocal.LATENCY):
        dut.total.value = int(totals[cycle]) if cycle < len(totals) else 0
        late = cycle - 1
        if 0 <= late < len(totals):
            dut.fixed.value, dut.fixed_shift.value = int(fixed[late]), int(fixed_shift[late])
        await ReadOnly()
        at = cycle - Reciprocal.SHIFT_LATENCY
        if 0 <= at < len(totals):
            want = fixed_shift[at] if fixed[at] else shift[at]
            assert int(dut.pre_shift.value) == want, f"shift for {totals[at]}"
        at = cycle - Reciprocal.LATENCY
        if at >= 0 and not fixed[at]:
            assert int(dut.multiplier.value) == multiplier[at], f"multiplier for {totals[at]}"
        await FallingEdge(dut.clk)
