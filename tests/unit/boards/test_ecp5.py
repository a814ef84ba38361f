"""ECP5 netlists: registers that move into multipliers, rows that stay empty."""

from __future__ import annotations

from typing import Any

from vitrify.boards.ecp5 import absorb_registers, cell, leave_rows

_PLAIN = {"CEMUX": "1 ", "CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
CLOCK, ENABLE, RESET = 1, 2, 3


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
    for choices in ({"reset": RESET}, {"REGSET": "SET"}, {"CLKMUX": "INV"}, {"CEMUX": "INV"}):
        module = _whole(**choices)
        absorb_registers(module)
        assert module["cells"]["product"]["connections"]["DI"] == [20]
        assert module["cells"]["times"]["connections"]["P0"] == [20]


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
    count = leave_rows(module)
    places = {one["attributes"]["BEL"] for one in module["cells"].values()}
    assert len(places) == len(module["cells"]) == count
    rows = {int(place.split("/")[1][1:]) for place in places}
    assert not rows & {10, 22, 34, 46, 58, 70, 82}
    assert 0.3 < count / 83_640 < 0.36
    assert all(not one["connections"] for one in module["cells"].values())
