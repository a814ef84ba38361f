"""The estimate agrees with hand counts and with the parts that the presets are made for."""

from __future__ import annotations

import dataclasses

import pytest

from bench import area as bench_area
from vitrify.arch.area import COEFFICIENTS, ERROR, area
from vitrify.arch.config import MECHANISMS, ArchConfig, Part
from vitrify.arch.estimate import KINDS, estimate, fits, memories, multipliers
from vitrify.arch.presets import PRESETS, preset

#: Cores at least that test the model of LUTs and flip-flops.
HELD_OUT = 11


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_parts(name):
    for resource in KINDS:
        use = estimate(PRESETS[name])[resource]
        assert use["used"] <= use["available"], (resource, use)
    assert fits(PRESETS[name], surely=True)


@pytest.mark.parametrize("kind", ["luts", "ffs", "dsps", "brams"])
def test_a_part_with_too_little_of_anything_is_too_small(kind):
    arch = preset("kv260")
    small = dataclasses.replace(arch, part=dataclasses.replace(arch.part, **{kind: 10}))
    assert fits(small) is False
    assert fits(dataclasses.replace(arch, part=Part())) is None


def test_how_sure():
    """Between the modelled number and its error, a core fits but not surely."""
    arch = preset("reference")
    used = estimate(arch)["lut"]
    part = dataclasses.replace(arch.part, luts=round(used["used"] * (1 + used["error"] / 2)))
    tight = dataclasses.replace(arch, part=part)
    assert fits(tight)
    assert not fits(tight, surely=True)


@pytest.mark.parametrize("kind", COEFFICIENTS)
def test_the_logic_model_is_fitted_to_what_is_on_file(kind):
    data = bench_area.known()
    fitted = bench_area.fit(data, kind)
    assert fitted.keys() == COEFFICIENTS[kind].keys()
    for unit, (coefficients, ratio) in fitted.items():
        known, four_inputs = COEFFICIENTS[kind][unit]
        assert known.keys() <= coefficients.keys()
        for name, value in coefficients.items():
            assert known.get(name, 0) == pytest.approx(value, abs=0.006), (unit, name)
        assert four_inputs == pytest.approx(ratio, abs=6e-4), unit


@pytest.mark.parametrize("kind", COEFFICIENTS)
def test_cores_that_the_logic_model_has_not_seen(kind):
    data = bench_area.known()
    assert sum(map(bench_area.held_out, data)) >= HELD_OUT
    for name, row in data.items():
        told = area(ArchConfig.from_dict(row["arch"]))[kind]
        assert told == pytest.approx(bench_area.used(row, kind), rel=ERROR[kind]), name


def test_options_and_sizes_cost_something():
    """What the model leaves out, nobody would see."""
    coded = preset("nano")
    assert area(coded)["luts"] > area(dataclasses.replace(coded, trellis=False))["luts"]
    arch = dataclasses.replace(
        preset("nano"), patterns=False, addends=False, products=False, row_sums=False,
        nibbles=False, stored_weights=False, experts=0, part=preset("kv260").part)
    changes = [
        *({option: True} for option in (*MECHANISMS, "fabric_multipliers") if option != "trellis"),
        {"experts": 8}, {"depth": 16}, {"width": 8}, {"lanes": 4}, {"banks": 8},
    ]
    least = area(arch)
    for change in changes:
        more = area(dataclasses.replace(arch, **change))
        assert more["luts"] > least["luts"], change


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


def test_packing_saves_no_multiplier_of_an_ecp5():
    """A pair of bytes is wider than one, and takes two."""
    arch = preset("nano")
    assert multipliers(dataclasses.replace(arch, packing=True)) == multipliers(arch)


def test_shallow_memories_are_no_blocks():
    small = dataclasses.replace(preset("nano"), index_entries=64, stat_rows=64)
    assert not {"row indices", "row statistics"} & {use.name for use in memories(small)}
