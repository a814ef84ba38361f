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
#: With three sums of every two columns.
THIRDS = dataclasses.replace(WIDE, name="thirds", nibble_tiles=1, packing=True, nibble_thirds=True)


@pytest.mark.parametrize("arch", [NANO, WIDE, THIRDS], ids=lambda arch: arch.name)
def test_accumulator(arch):
    simulate(Accumulator(arch), "accumulator", BENCH, arch=arch, options={
        "latency": Accumulator.latency, "drain_latency": Accumulator.drain_latency})
