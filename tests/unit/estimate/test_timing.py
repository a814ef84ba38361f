# amaranth: UnusedElaboratable=no
"""The estimator's constants are those of the units."""



from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from vitrify.arch.config import Dram
from vitrify.arch.presets import PRESETS
from vitrify.estimate import loader, timing
from vitrify.estimate.bus import Bus, Client
from vitrify.estimate.recorder import Observer
from vitrify.rtl import interfaces
from vitrify.rtl.array.accumulator import Accumulator
from vitrify.rtl.array.matrix import MatrixUnit
from vitrify.rtl.bus import bursts
from vitrify.rtl.control import dispatcher, instruction_fetch
from vitrify.rtl.core import Core
from vitrify.rtl.units import fetch
from vitrify.rtl.units import loader as loader_unit
from vitrify.rtl.units.epilogue import Epilogue
from vitrify.rtl.units.row_stats import RowStats
from vitrify.rtl.units.transform import Transform

ARCHES = [
    *PRESETS.values(),
    dataclasses.replace(PRESETS["nano"], name="tall", depth=4, width=8, lanes=4),
    dataclasses.replace(PRESETS["zcu102"], name="deep", depth=128, lanes=8, bus_bytes=128),
    dataclasses.replace(PRESETS["nano"], name="quads", tile_quads=True),
    dataclasses.replace(PRESETS["pynq-z2"], name="narrow", bus_bytes=1, weight_fifo_words=16),
    dataclasses.replace(PRESETS["zcu102"], name="split", bus_bytes=1, ports=1, burst_beats=4),
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
    assert found.beats * arch.bus_bytes == arch.depth


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_bursts(arch):
    assert timing.unit_bytes(arch) == bursts.unit_bytes(arch, arch.burst_beats)
    for words in arch.fifo_words.values():
        assert timing.burst_units(arch, words) == bursts.burst_units(arch, words, arch.burst_beats)


def test_constants():
    assert timing.MIN_PASS == interfaces.MIN_PASS
    assert timing.REVISIT == RowStats.REVISIT
    assert timing.SLOTS == fetch._SLOTS
    assert timing.CHUNK == instruction_fetch.CHUNK
    assert loader._SETTLE == loader_unit._SETTLE
    assert timing.SETTLE == dispatcher.SETTLE_CYCLES


def test_words_of_several_bursts():
    """A burst of less than a word: words are complete with their last unit."""
    arch = dataclasses.replace(PRESETS["nano"], name="parts", depth=32, bus_bytes=4, burst_beats=2,
                               outstanding=16, dram=Dram(latency=20, outstanding=16))
    client = Client(arch, arch.fifo_words["loads"])
    client.request(0, 32, 3)
    bus = Bus(arch, {"weights": client}, Observer())
    bus.fetch(client, 2)
    assert (client.parts, len(client.arrivals), bus.beats) == (4, 3, 3 * 8)
    assert all(later - earlier == 8 for earlier, later in pairwise(client.arrivals))
