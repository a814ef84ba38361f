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


def test_tiles_of_nibbles_are_another_contract() -> None:
    """Whose programs run on no other core; without them, older programs stay good."""
    arch = preset("nano")
    assert dataclasses.replace(arch, nibble_tiles=2).hash != arch.hash
    fields = {**arch.to_dict(), "nibble_tiles": 1}
    assert ArchConfig.from_dict(fields).hash == arch.hash
    del fields["nibble_tiles"]
    assert ArchConfig.from_dict(fields).hash == arch.hash


def test_sizes_that_the_presets_promise() -> None:
    assert {name: a.macs for name, a in PRESETS.items()} == {
        "nano": 32, "reference": 1024, "ulx3s": 128, "ulx3s-w4": 128,
        "colorlight-i9": 32, "schoko": 32, "pynq-z2": 256, "kv260": 2048, "zcu102": 4096,
    }
