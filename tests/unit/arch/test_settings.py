"""Settings in words, schema and checks agree with the configuration itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.support.command import vitrify
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import ConfigError
from vitrify.arch.load import load
from vitrify.arch.presets import PRESETS, preset
from vitrify.arch.settings import AROUND, SETTINGS, problems, schema, table

ROOT = Path(__file__).parents[3]
#: A core in which every setting may go to its ends.
LARGE = dataclasses.replace(
    preset("nano"), name="large", depth=128, width=256, lanes=128, bus_bytes=128, banks=2,
    bank_words=16, requant_bits=24,
)


def test_every_setting_is_described():
    fields = {field.name for field in dataclasses.fields(ArchConfig)}
    assert set(SETTINGS) | set(AROUND) - {"base"} == fields
    assert not set(SETTINGS) & set(AROUND)
    assert table() in (ROOT / "docs" / "architectures.md").read_text()
    found = schema()["properties"]
    assert found.keys() == fields | {"base"}


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s.low is not None])
def test_bounds_are_those_of_the_configuration(name):
    setting = SETTINGS[name]
    around = {"depth": {"bus_bytes": 1, "lanes": 1}, "width": {"lanes": 1}}.get(name, {})
    large = dataclasses.replace(LARGE, **around)
    for value in (setting.low, setting.high):
        assert setting.allows(value)
        dataclasses.replace(large, **{name: value})
    for value in (setting.low - 1, setting.high + 1, setting.high * 2):
        assert not setting.allows(value)
        with pytest.raises(ConfigError):
            dataclasses.replace(large, **{name: value})


def test_presets_follow_the_schema():
    """By hand, for what the presets use of it: enumerations, bounds, types."""
    properties = schema()["properties"]
    for arch in PRESETS.values():
        for name, value in arch.to_dict().items():
            rule = properties[name]
            if "enum" in rule:
                assert value in rule["enum"], name
            if "minimum" in rule:
                assert rule["minimum"] <= value <= rule["maximum"], name
            if rule.get("type") == "object":
                assert value.keys() == rule["properties"].keys()


def test_all_problems_at_once():
    values = preset("kv260").to_dict() | {
        "depth": 33, "banks": 7, "lanes": "many", "colour": "red", "dram": {"latency": -1},
    }
    found = problems(values, preset("kv260"))
    assert len(found) == 5
    for words in ("depth must be a power of two", "banks must be an even number", "lanes must be",
                  "no setting 'colour'", "latency must be 0"):
        assert sum(words in text for text in found) == 1, (words, found)
    assert problems(preset("kv260").to_dict(), preset("nano")) == []
    del values["width"]
    assert any("width" in text for text in problems(values, preset("kv260")))


def test_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {row["name"] for row in json.loads(vitrify(capsys, "arch", "list", "--json"))} == {
        *PRESETS
    }
    assert "zcu102" in vitrify(capsys, "arch", "list")
    vitrify(capsys, "arch", "new", "mine.yaml", "--from", "zcu102")
    assert dataclasses.replace(load("mine.yaml"), name="zcu102") == preset("zcu102")
    assert "exists" in vitrify(capsys, "arch", "new", "mine.yaml", code=2)
    assert "sound; xczu9eg-ffvb1156-2-e: fits" in vitrify(capsys, "arch", "check", "mine.yaml")
    assert json.loads(vitrify(capsys, "arch", "show", "mine.yaml", "--json"))["name"] == "mine"
    assert "what it trades" in vitrify(capsys, "arch", "show", "kv260")
    assert json.loads(vitrify(capsys, "arch", "schema")) == schema()
    Path("bad.yaml").write_text("base: nano\ndepth: 5\nbanks: 3\n")
    assert "has 2 problems" in vitrify(capsys, "arch", "check", "bad.yaml", code=2)
    assert "ends in .yaml" in vitrify(capsys, "arch", "new", "mine.txt", code=2)
