"""Sums of real and of extreme rows, back to back and with gaps, against the golden kernel."""

import cocotb
import numpy as np

from vitrify.arch import formats
from vitrify.cosim import bench
from vitrify.golden.ops import layernorm
from vitrify.rtl import interfaces
from vitrify.rtl.units.norm_finish import ROW_SUMS, NormFinish

DIMS = (1, 2, 3, 4, 5, 7, 8, 31, 48, 64, 127, 192, 193, 255, 384, 768, 1000, 3071, 4095, 4096)


def _rows(dim, random):
    """int16 rows of one dimension: extremes, near-constant ones and every scale."""
    yield np.zeros(dim)
    for value in (-32768, 32767, -32767, 1, -1, 181):
        yield np.full(dim, value)
    half = np.arange(dim) % 2
    yield np.where(half, 32767, -32768)
    yield np.where(half, 1, 0)
    single = np.zeros(dim)
    single[0] = -32768
    yield single
    for _ in range(12):
        deviation = 2.0 ** random.uniform(-3, 16)
        mean = random.uniform(-1, 1) * 2.0 ** random.integers(16)
        yield np.clip(np.round(random.normal(mean, deviation, dim)), -32768, 32767)


def _cases():
    random = bench.rng()
    sums, wanted = [], []
    for dim in DIMS:
        inv_dim, inv_shift = formats.inv_dim(dim)
        for row in _rows(dim, random):
            x = row.astype(np.int64)
            total, squares = int(x.sum()), int((x * x).sum())
            epsilon = int(random.choice([0, 1, 16, int(random.integers(1 << 16)), 65535]))
            sums.append(bench.pack(ROW_SUMS, {
                "total": total, "squares": squares, "inv_dim": inv_dim,
                "inv_shift": inv_shift, "epsilon": epsilon,
            }))
            mean, shift, mantissa = layernorm.finish(
                np.array([total]), np.array([squares]), inv_dim=inv_dim, inv_shift=inv_shift,
                epsilon=epsilon,
            )
            wanted.append({"mean": mean[0], "shift": shift[0], "mantissa": mantissa[0]})
    return sums, wanted


@cocotb.test()
@cocotb.parametrize(gap=[0.0, 0.4])
async def rows_of_every_kind(dut, gap):
    await bench.start(dut)
    sums, wanted = _cases()
    found = []
    cocotb.start_soon(bench.pipe_get(dut, "o", found))
    began = bench.now()
    await bench.pipe_put(dut, "i", sums, gap=gap)
    await bench.cycles(dut, NormFinish.LATENCY + 2)
    assert len(found) == len(sums)
    for (_, word), want, given in zip(found, wanted, sums, strict=True):
        assert bench.unpack(interfaces.STAT, word) == want, bench.unpack(ROW_SUMS, given)
    if not gap:
        assert [cycle for cycle, _ in found] == [
            began + NormFinish.LATENCY + i for i in range(len(sums))
        ]
