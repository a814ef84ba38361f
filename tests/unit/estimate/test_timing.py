# amaranth: UnusedElaboratable=no
"""The estimator's constants are those of the units."""



from __future__ import annotations

import dataclasses

import pytest

from vitrify.arch.presets import PRESETS
from vitrify.estimate import loader, timing
from vitrify.rtl import interfaces
from vitrify.rtl.array.accumulator import Accumulator
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.bus import bursts
from vitrify.rtl.control import dispatcher, instruction_fetch
from vitrify.rtl.core import Core
from vitrify.rtl.units import fetch, tile_writer
from vitrify.rtl.units import loader as loader_unit
from vitrify.rtl.units.epilogue import Epilogue
from vitrify.rtl.units.row_stats import RowStats
from vitrify.rtl.units.transform import Transform

ARCHES = [
    *PRESETS.values(),
    dataclasses.replace(PRESETS["nano"], name="tall", depth=4, width=8, lanes=4),
    dataclasses.replace(PRESETS["zcu102"], name="deep", depth=128, lanes=8, bus_bytes=128),
    dataclasses.replace(PRESETS["pynq-z2"], name="narrow", bus_bytes=1, weight_fifo_words=16),
]


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_latencies(arch):
    found = timing.Timing.of(arch)
    transform, matrix, accumulator = Transform(arch), MatrixUnit(arch), Accumulator(arch)
    epilogue = Epilogue(arch, drain_latency=accumulator.drain_latency)
    statistics = RowStats(arch)
    assert found.swap == Core(arch)._swap_latency(transform, matrix)
    assert timing.matrix_latency(arch) == matrix.latency
    assert found.drain == (
        interfaces.READ_LATENCY + transform.latency + matrix.latency + accumulator.latency
    )
    assert found.result == epilogue.result_cycle
    assert (found.row_max, found.row_norm) == (statistics.max_latency, statistics.norm_latency)
    assert found.tile_buffer == tile_writer.buffer_words(arch)
    assert found.beats == bursts.beats_per_word(arch)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_bursts(arch):
    for words in arch.fifo_words.values():
        assert timing.burst_words(arch, words) == bursts.burst_words(arch, words, arch.burst_beats)


def test_constants():
    assert timing.PARAM_SLOTS == interfaces.PARAM_SLOTS
    assert timing.MIN_PASS == interfaces.MIN_PASS
    assert timing.COMMAND_DEPTH == interfaces.COMMAND_DEPTH
    assert timing.SLOTS == fetch._SLOTS
    assert timing.OUTSTANDING == bursts.OUTSTANDING
    assert timing.CHUNK == instruction_fetch.CHUNK
    assert loader._SETTLE == loader_unit._SETTLE
    assert timing.SETTLE == dispatcher.SETTLE_CYCLES
