"""ArchConfig: validation names the setting and the value; presets fit their parts."""

from __future__ import annotations

import dataclasses

import pytest

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError
from vitrify.arch.presets import PRESETS, preset


@pytest.mark.parametrize(("change", "message"), [
    ({"depth": 12}, "depth must be a power of two from 4 to 128, not 12"),
    ({"lanes": 16}, "lanes must be a power of two from 1 to 4, not 16"),
    ({"banks": 3}, "banks must be an even number from 2 to 64, not 3"),
    ({"requant_bits": 40}, "requant_bits must be 16 to 27, not 40"),
    ({"outstanding": 0}, "outstanding must be 1 to 64, not 0"),
    ({"max_rows": 2.0}, "max_rows must be an integer, not 2.0"),
    ({"nibble_tiles": 3}, "nibble_tiles must be 1 to 2, not 3"),
    ({"nibble_tiles": 2, "packing": True}, "nibble_tiles must be 1 with packing"),
    ({"nibble_tiles": 2, "nibbles": False}, "nibble_tiles must be 1 without nibbles"),
    ({"nibble_thirds": 1}, "nibble_thirds must be true or false, not 1"),
    ({"nibble_thirds": True, "nibbles": False}, "nibble_thirds needs nibbles"),
    ({"nibble_thirds": True}, "nibble_thirds needs packing"),
    ({"nibble_thirds": True, "packing": True, "part": preset("pynq-z2").part},
     "nibble_thirds needs a DSP48E2: the DSP48E1 of 7-series parts is too narrow"),
    ({"nibble_thirds": True, "packing": True},
     r"nibble_thirds needs a width of at least twice the depth, 16"),
    ({"tile_quads": True, "stored_weights": False},
     "tile_quads needs stored_weights, whose tiles they are"),
    ({"tile_quads": True, "width": 2, "lanes": 2}, "tile_quads needs a width of at least 4, not 2"),
    ({"nibble_thirds": True, "packing": True, "width": 16, "lanes": 1},
     "nibble_thirds needs at least two lanes"),
    ({"banks": 64, "bank_words": 65536}, "exceed the 2\\*\\*20 words"),
])
def test_bad_value(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(preset("nano"), **change)


def test_dictionary_round_trip() -> None:
    for arch in PRESETS.values():
        assert ArchConfig.from_dict(arch.to_dict()) == arch


def test_unknown_and_missing_settings() -> None:
    data = preset("nano").to_dict()
    with pytest.raises(ConfigError, match="arch has no setting 'speed'"):
        ArchConfig.from_dict({**data, "speed": 3})
    with pytest.raises(ConfigError, match="part has no setting 'pins'"):
        ArchConfig.from_dict({**data, "part": {"pins": 4}})
    del data["depth"]
    with pytest.raises(ConfigError, match="arch lacks the setting 'depth'"):
        ArchConfig.from_dict(data)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="no preset is called 'kv26'; the presets are nano"):
        preset("kv26")


def test_hash_follows_the_contract_only() -> None:
    arch = preset("kv260")
    assert dataclasses.replace(arch, packing=False, name="x", clock_mhz=1.0).hash == arch.hash
    assert dataclasses.replace(arch, lanes=16).hash != arch.hash
    assert len({a.hash for a in PRESETS.values()}) == len(PRESETS)


def test_cores_that_route_are_no_older_ones() -> None:
    """A router of before ROUTEs joined would pass over the field; cores without one stay good."""
    assert preset("kv260").hash != 0xEC984D4F
    assert preset("ulx3s").hash == 0x367A48A1


@pytest.mark.parametrize(("name", "field", "without", "value"), [
    ("nano", "nibble_tiles", 1, 2), ("kv260", "nibble_thirds", False, True),
])
def test_tiles_of_nibbles_are_another_contract(
    name: str, field: str, without: int, value: int
) -> None:
    """Whose programs run on no other core; without them, older programs stay good."""
    arch = preset(name)
    assert dataclasses.replace(arch, **{field: value}).hash != arch.hash
    fields = {**arch.to_dict(), field: without}
    assert ArchConfig.from_dict(fields).hash == arch.hash
    del fields[field]
    assert ArchConfig.from_dict(fields).hash == arch.hash


def test_c_tiles_of_nibbles_may_be_wider() -> None:
    arch = preset("kv260-w4")
    assert (arch.tile_width(0), arch.tile_width(1)) == (64, 96)
    assert (arch.groups, arch.most_groups) == (2, 3)
    for name in ("kv260", "ulx3s-w4"):
        arch = preset(name)
        assert arch.tile_width(0) == arch.tile_width(1) == arch.width
        assert arch.groups == arch.most_groups


def test_sizes_that_the_presets_promise() -> None:
    assert {name: a.macs for name, a in PRESETS.items()} == {
        "nano": 32, "reference": 1024, "ulx3s": 128, "ulx3s-w4": 128,
        "colorlight-i9": 32, "schoko": 32, "pynq-z2": 256, "kv260": 2048,
        "kv260-w4": 2048, "zcu102": 4096,
    }
