"""The AXI4 master at several ratios of word and bus."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.bus.bursts import burst_units, unit_bytes
from vitrify.rtl.bus.master import AxiMaster

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
#: Word and bus equal; a bus of one byte; a word longer than an instruction.
WIDE = dataclasses.replace(NANO, name="wide", depth=16, bus_bytes=16, weight_fifo_words=256)
NARROW = dataclasses.replace(NANO, name="narrow", depth=4, bus_bytes=1)
LONG = dataclasses.replace(NANO, name="long", depth=128, bus_bytes=32)
BURSTS = dataclasses.replace(
    NANO, name="bursts", depth=16, bus_bytes=2, burst_beats=256, weight_fifo_words=256
)
#: Words longer than the longest burst.
SPLIT = dataclasses.replace(
    NANO, name="split", depth=64, bus_bytes=2, burst_beats=8, outstanding=16
)
BEATS = dataclasses.replace(
    NANO, name="beats", depth=8, bus_bytes=4, burst_beats=1, outstanding=24
)


@pytest.mark.parametrize(
    "arch", [NANO, WIDE, NARROW, LONG, BURSTS, SPLIT, BEATS], ids=lambda arch: arch.name
)
def test_master(arch):
    simulate(AxiMaster(arch), f"bus-{arch.name}", BENCHES / "bus_bench.py", arch=arch)


def test_bursts():
    for arch, fifo, beats, unit, units in (
        (NANO, 64, 16, 8, 8),      # 16 beats of 4 bytes, words of 8
        (LONG, 64, 16, 128, 4),
        (NARROW, 6, 16, 4, 2),     # half of 6 words, down to a power of two
        (BURSTS, 512, 256, 16, 32),
        (SPLIT, 4, 8, 16, 1),      # a word is four bursts
        (BEATS, 64, 1, 4, 1),
    ):
        assert unit_bytes(arch, beats) == unit
        assert burst_units(arch, fifo, beats) == units
        assert units * unit <= min(beats * arch.bus_bytes, 4096)


@pytest.mark.parametrize(("fifo", "beats", "match"), [
    (64, 12, "burst_beats must be a power of two from 1 to 256, not 12"),
    (64, 512, "burst_beats must be a power of two from 1 to 256, not 512"),
    (1, 16, "must hold at least 2 words, not 1"),
])
def test_bursts_refuse(fifo, beats, match):
    with pytest.raises(ValueError, match=match):
        burst_units(NANO, fifo, beats)
