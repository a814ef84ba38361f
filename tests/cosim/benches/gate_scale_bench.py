"""Gate weights into multipliers at full rate, against the golden product."""

from itertools import product

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.arch import formats
from vitrify.cosim import bench
from vitrify.golden.ops import routing
from vitrify.rtl.units.gate_scale import GateScale


@cocotb.test()
async def products(dut):
    await bench.start(dut)
    one, top = 1 << formats.GATE_FRAC, (1 << formats.MULTIPLIER_BITS) - 1
    edges = list(product((0, 1, 2, top // 2, top - 1, top), (0, 1, one // 2, one - 1, one)))
    random = bench.rng()
    more = np.stack([random.integers(0, top + 1, 3000), random.integers(0, one + 1, 3000)], axis=1)
    pairs = np.concatenate([np.array(edges), more])
    want = [int(routing.scale(int(m), np.array([w]))[0, 0]) for m, w in pairs]
    for cycle in range(len(pairs) + GateScale.LATENCY):
        if cycle < len(pairs):
            dut.multiplier.value, dut.weight.value = (int(value) for value in pairs[cycle])
        await ReadOnly()
        at = cycle - GateScale.LATENCY
        if at >= 0:
            assert int(dut.o.value) == want[at], f"{pairs[at]}"
        await FallingEdge(dut.clk)
