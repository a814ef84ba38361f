"""Accumulators: partial sums over k tiles, drain memory and its progress."""

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.array.accumulator import Accumulator

BENCH = Path(__file__).parent / "benches" / "accumulator_bench.py"
NANO = preset("nano")
#: With two sums of every column.
WIDE = dataclasses.replace(NANO, name="wide", depth=4, width=32, max_rows=16, nibble_tiles=2)


@pytest.mark.parametrize("arch", [NANO, WIDE], ids=lambda arch: arch.name)
def test_accumulator(arch):
    simulate(Accumulator(arch), "accumulator", BENCH, arch=arch, options={
        "latency": Accumulator.latency, "drain_latency": Accumulator.drain_latency})
