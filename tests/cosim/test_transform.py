# amaranth: UnusedElaboratable=no
"""Operand transform: every mode at full rate and with gaps, against the golden kernels."""

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import PRESETS, preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.array.accumulator import Accumulator
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.units.transform import Transform

BENCH = Path(__file__).parent / "benches" / "transform_bench.py"
NANO = preset("nano")
#: Depth 4, and multipliers without DSP blocks.
FABRIC = dataclasses.replace(
    NANO, name="fabric", depth=4, width=8, lanes=4, fabric_multipliers=True
)


@pytest.mark.parametrize("arch", [NANO, FABRIC], ids=lambda arch: arch.name)
def test_transform(arch):
    unit = Transform(arch)
    simulate(unit, "transform", BENCH, arch=arch, options={
        "latency": unit.latency, "sum_latency": unit.sum_latency})


@pytest.mark.parametrize("arch", PRESETS.values(), ids=PRESETS)
def test_a_row_sum_is_there_before_its_row(arch):
    transform, matrix = Transform(arch), MatrixUnit(arch)
    assert transform.sum_latency <= transform.latency + matrix.latency + Accumulator.latency
