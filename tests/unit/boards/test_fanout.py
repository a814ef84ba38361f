"""Copies of drivers: nobody has too many readers, and every reader sees what it saw before."""

from __future__ import annotations

from typing import Any

import pytest

from vitrify.boards.fanout import split_fanout
from vitrify.boards.netlist import Wiring, cell


def _module(kind: str, readers: int) -> dict[str, Any]:
    """A register, behind it ``kind``, and behind that ``readers`` LUTs, in two parts, and a pin."""
    register = cell("TRELLIS_FF", {"CLK": 2, "DI": 3, "LSR": "0"}, {"Q": 4}, {"REGSET": "RESET"})
    ways = {
        "LUT4": cell("LUT4", {"A": 4, "B": "1"}, {"Z": 5}, {"INIT": "10"}),
        "TRELLIS_FF": cell("TRELLIS_FF", {"CLK": 2, "DI": 4}, {"Q": 5}, {"REGSET": "SET"}),
        "PFUMX": cell("PFUMX", {"BLUT": 4, "ALUT": 4, "C0": 4}, {"Z": 5}, {}),
    }
    cells = {"first": register, "driver": ways[kind]} | {
        f"{part}.{i:03}": cell("LUT4", {"A": 5, "B": "0"}, {"Z": 10 + 2 * i + (part == "b")}, {})
        for i in range(readers // 2) for part in ("a", "b")
    }
    pins = {"clk": {"direction": "input", "bits": [2]}, "in": {"direction": "input", "bits": [3]},
            "out": {"direction": "output", "bits": [5, "1"]}}
    return {"cells": cells, "ports": pins, "netnames": {"driver": {"bits": [5]}}}


@pytest.mark.parametrize("kind", ["LUT4", "TRELLIS_FF"])
def test_readers_are_shared_out(kind: str) -> None:
    module = _module(kind, 100)
    before = set(module["cells"])
    assert split_fanout(module, most=30) == 3
    copies = set(module["cells"]) - before
    assert copies == {"driver.copy1", "driver.copy2", "driver.copy3"}
    wiring = Wiring(module)
    assert max(len(users) for users in wiring.readers.values()) <= 30
    original = module["cells"]["driver"]
    output = "Z" if kind == "LUT4" else "Q"
    for name in copies:
        copy = module["cells"][name]
        assert {**copy, "connections": None} == {**original, "connections": None}
        assert {**copy["connections"], output: [5]} == original["connections"]
    # Every reader has the original or a copy, each net one driver, and parts are not mixed.
    shares = {name: [] for name in (*copies, "driver")}
    for name in before - {"first", "driver"}:
        shares[wiring.driver(module["cells"][name]["connections"]["A"][0])].append(name)
    assert {len(share) for share in shares.values()} == {25}
    assert all(len({name[0] for name in share}) == 1 for share in shares.values())
    outputs = [
        bit for one in module["cells"].values() for port, (bit,) in one["connections"].items()
        if one["port_directions"][port] == "output"
    ]
    assert len(set(outputs)) == len(outputs)
    assert 5 in module["ports"]["out"]["bits"]


def test_what_cannot_be_copied_stays() -> None:
    module = _module("PFUMX", 100)
    assert split_fanout(module, most=30) == 0
    # A register right behind a wide multiplexer.
    module = _module("TRELLIS_FF", 100)
    module["cells"]["first"] = cell("PFUMX", {"BLUT": 3, "ALUT": 3, "C0": 3}, {"Z": 4}, {})
    assert split_fanout(module, most=30) == 0


def test_a_register_is_copied_with_its_lut() -> None:
    module = _module("TRELLIS_FF", 100)
    module["cells"]["first"] = cell("LUT4", {"A": 3}, {"Z": 4}, {"INIT": "01"})
    # Which others read, too.
    module["cells"]["also"] = cell("LUT4", {"A": 4}, {"Z": 9}, {})
    assert split_fanout(module, most=30) == 3
    wiring = Wiring(module)
    luts = {
        wiring.driver(module["cells"][name]["connections"]["DI"][0])
        for name in ("driver", "driver.copy1", "driver.copy2", "driver.copy3")
    }
    assert len(luts) == 4
    assert "first" in luts
    for name in luts:
        one = module["cells"][name]
        assert one["parameters"] == {"INIT": "01"}
        assert one["connections"]["A"] == [3]
    assert wiring.driver(module["cells"]["also"]["connections"]["A"][0]) == "first"


def test_few_readers_stay() -> None:
    module = _module("LUT4", 30)
    assert split_fanout(module, most=30) == 0


def test_the_other_bits_of_a_port_stay() -> None:
    module = _module("LUT4", 100)
    ram = cell("TRELLIS_DPR16X4", {"WCK": 2}, {}, {})
    # Named so that a copy drives it.
    module["cells"]["z"] = ram | {
        "port_directions": {**ram["port_directions"], "WAD": "input"},
        "connections": {**ram["connections"], "WAD": [4, 5, "0", 3]},
    }
    split_fanout(module, most=30)
    first, copied, *others = module["cells"]["z"]["connections"]["WAD"]
    assert (first, *others) == (4, "0", 3)
    assert Wiring(module).driver(copied) == "driver.copy3"
