"""The two-entry buffer: nothing lost, nothing twice, in order; full rate; registered ready."""

import random

import cocotb
from cocotb.triggers import FallingEdge, ReadOnly

from vitrify.cosim import bench

_WORDS = 2000


async def _run(dut, offered, taken):
    """Stream numbers with the given probabilities of ``valid`` and ``ready``; returns cycles."""
    await bench.start(dut)
    sent, got, valid = 0, [], False
    for cycle in range(20 * _WORDS):
        if len(got) == _WORDS:
            return cycle
        valid = valid or (sent < _WORDS and random.random() < offered)
        dut.i__valid.value, dut.i__payload.value = int(valid), sent & 0xFFFF
        before = int(dut.i__ready.value)
        dut.o__ready.value = int(random.random() < taken)
        await ReadOnly()
        assert int(dut.i__ready.value) == before, "ready must not hang on the other side's ready"
        held = sent - len(got)
        assert int(dut.empty.value) == (held == 0)
        assert held <= 2
        if dut.o__valid.value == 1 and dut.o__ready.value == 1:
            got.append(int(dut.o__payload.value))
        if valid and dut.i__ready.value == 1:
            sent, valid = sent + 1, False
        await FallingEdge(dut.clk)
        assert got == list(range(len(got)))
    raise AssertionError("it hangs")


@cocotb.test()
async def full_rate(dut):
    assert await _run(dut, 1.0, 1.0) == _WORDS + 1


@cocotb.test()
@cocotb.parametrize(offered=[0.3, 1.0], taken=[0.3, 0.8])
async def stalls(dut, offered, taken):
    await _run(dut, offered, taken)
