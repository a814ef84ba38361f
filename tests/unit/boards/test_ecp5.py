"""ECP5 netlists: registers that move into multipliers, places of memories, empty rows."""

from __future__ import annotations

from typing import Any

import pytest

from vitrify.boards.ecp5 import CHIPS, absorb_registers, leave_rows
from vitrify.boards.netlist import cell

_PLAIN = {"CEMUX": "1 ", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
CLOCK, ENABLE, RESET = 1, 2, 3
CHIP = CHIPS["LFE5U-85F"]


def _register(source: int, target: int, **choices: Any) -> dict[str, Any]:
    nets: dict[str, int | str] = {"CLK": CLOCK, "DI": source, "LSR": choices.pop("reset", "0")}
    if "enable" in choices:
        nets["CE"] = choices.pop("enable")
        choices["CEMUX"] = "CE"
    return cell("TRELLIS_FF", nets, {"Q": target}, _PLAIN | choices)


def _multiplier(a: int, b: int, p: int) -> dict[str, Any]:
    return cell("MULT18X18D", {"A0": a, "A1": "0", "B0": b}, {"P0": p, "P1": p + 1}, {})


def _module(**cells: dict[str, Any]) -> dict[str, Any]:
    pins = {"clk": {"direction": "input", "bits": [CLOCK]},
            "out": {"direction": "output", "bits": [30]}}
    return {"cells": cells, "ports": pins, "netnames": {}}


def _whole(**choices: Any) -> dict[str, Any]:
    """Operands 4 and 5 through registers, the product through one to the pin 30."""
    return _module(
        a=_register(4, 10), b=_register(5, 11, enable=ENABLE), times=_multiplier(10, 11, 20),
        product=_register(20, 30, **choices),
    )


def test_all_registers_move() -> None:
    module = _whole()
    assert absorb_registers(module) == 3
    assert set(module["cells"]) == {"times"}
    times = module["cells"]["times"]
    nets = {port: bit for port, (bit,) in times["connections"].items()}
    assert nets == {
        "A0": 4, "A1": "0", "B0": 5, "P0": 30, "P1": 21, "CLK0": CLOCK, "RST0": "0",
        "CE0": "1", "CE1": "1", "CE2": ENABLE,
    }
    assert times["parameters"] == {
        f"REG_{name}_{what}": value
        for name, enable in (("OUTPUT", "CE0"), ("INPUTA", "CE1"), ("INPUTB", "CE2"))
        for what, value in (("CLK", "CLK0"), ("CE", enable), ("RST", "RST0"))
    }
    assert times["port_directions"]["CE2"] == "input"


def test_registers_with_a_reset_stay() -> None:
    for choices in ({"reset": RESET}, {"REGSET": "SET"}, {"CLKMUX": "INV"}):
        module = _whole(**choices)
        absorb_registers(module)
        assert module["cells"]["product"]["connections"]["DI"] == [20]
        assert module["cells"]["times"]["connections"]["P0"] == [20]


def test_enables_by_a_zero_get_one_inverter() -> None:
    module = _whole()
    for name in ("a", "b", "product"):
        one = module["cells"][name]
        one["connections"]["CE"], one["port_directions"]["CE"] = [ENABLE], "input"
        one["parameters"]["CEMUX"] = "INV"
    assert absorb_registers(module) == 3
    inverter = module["cells"].pop("a.CE")
    assert set(module["cells"]) == {"times"}
    # Of the 16 values, bit 0 is what comes out for zeros.
    assert [int(inverter["parameters"]["INIT"][-1 - a]) for a in (0, 1)] == [1, 0]
    assert inverter["connections"]["A"] == [ENABLE]
    nets = module["cells"]["times"]["connections"]
    assert nets["CE0"] == nets["CE1"] == nets["CE2"] == inverter["connections"]["Z"]


def test_one_registered_operand_stays() -> None:
    module = _whole()
    del module["cells"]["b"]
    absorb_registers(module)
    assert set(module["cells"]) == {"a", "times"}


def test_what_others_read_stays() -> None:
    module = _whole()
    module["cells"]["other"] = cell("LUT4", {"A": 20, "B": 10}, {"Z": 40}, {})
    assert absorb_registers(module) == 0


def test_operands_are_shared_by_multipliers() -> None:
    """A register stays for the one multiplier that cannot take it."""
    module = _whole()
    module["cells"]["again"] = _multiplier(10, 11, 24)
    assert absorb_registers(module) == 3
    assert module["cells"]["again"]["connections"]["A0"] == [4]
    module = _whole()
    module["cells"]["raw"] = _multiplier(10, 6, 24)
    assert absorb_registers(module) == 2
    assert set(module["cells"]) == {"a", "times", "raw"}
    assert module["cells"]["raw"]["connections"]["A0"] == [10]


def test_a_register_moves_once() -> None:
    """Between two multipliers it belongs to the first one's product."""
    module = _whole()
    module["cells"] |= {
        "c": _register(7, 12), "next": _multiplier(13, 12, 26), "between": _register(20, 13),
    }
    del module["cells"]["product"]
    assert absorb_registers(module) == 3
    cells = module["cells"]
    assert set(cells) == {"c", "times", "next"}
    assert cells["times"]["connections"]["P0"] == cells["next"]["connections"]["A0"] == [13]


def test_rows_stay_empty() -> None:
    module = _module()
    count = leave_rows(module, CHIP, 30_000)
    places = {one["attributes"]["BEL"] for one in module["cells"].values()}
    assert len(places) == len(module["cells"]) == count
    rows = {int(place.split("/")[1][1:]) for place in places}
    assert not rows & {10, 22, 34, 46, 58, 70, 82}
    assert 0.3 < count / 83_640 < 0.36
    assert all(not one["connections"] for one in module["cells"].values())


@pytest.mark.parametrize(("part", "used", "every"), [
    ("LFE5U-85F", 35_000, 3), ("LFE5U-85F", 36_000, 4), ("LFE5U-45F", 20_000, 4),
    ("LFE5U-25F", 13_000, 7), ("LFE5U-25F", 15_000, None),
])
def test_no_more_rows_than_the_design_leaves(part: str, used: int, every: int | None) -> None:
    module, chip = _module(), CHIPS[part]
    left = leave_rows(module, chip, used)
    rows = len(chip.rows[::every]) if every else 0
    assert left == len(module["cells"]) == rows * len(chip.columns) * 8
