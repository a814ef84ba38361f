"""The estimate agrees with hand counts and with the parts that the presets are made for."""

from __future__ import annotations

import dataclasses

import pytest

from vitrify.arch.estimate import estimate, memories, multipliers
from vitrify.arch.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_parts(name):
    for resource in ("dsp", "bram", "uram"):
        use = estimate(PRESETS[name])[resource]
        assert use["used"] <= use["available"], (resource, use)


def test_hand_counts():
    arch = preset("ulx3s")
    assert multipliers(arch)["matrix unit"] == 128
    use = estimate(arch)
    # 10 banks of 4096 words of 64 bits: 16 blocks of 4 bits each
    assert use["bram"]["by purpose"]["token memory"] == 160
    # two memories of 16 * 28 bits, 256 deep: 13 blocks of 36 bits each
    assert use["bram"]["by purpose"]["partial sums"] == 26
    kv260 = estimate(preset("kv260"))
    assert kv260["dsp"]["by purpose"]["matrix unit"] == 1024
    # 8 banks of 256 bits: four UltraRAMs side by side
    assert kv260["uram"]["used"] == 64
    assert kv260["bram"]["by purpose"]["weights"] == 4


def test_packing_halves_the_matrix_unit():
    arch = preset("reference")
    packed = dataclasses.replace(arch, packing=True)
    assert multipliers(arch)["matrix unit"] == 2 * multipliers(packed)["matrix unit"]


def test_shallow_memories_are_no_blocks():
    small = dataclasses.replace(preset("nano"), index_entries=64, stat_rows=64)
    assert not {"row indices", "row statistics"} & {use.name for use in memories(small)}
