"""The longest path of small netlists made by hand, and the range of clocks that it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vitrify.arch.errors import BackendError
from vitrify.boards.clock import CALIBRATION, LAW, clock_range
from vitrify.boards.levels import Wire, longest_path
from vitrify.boards.netlist import cell
from vitrify.boards.synthesis import Resources
from vitrify.cli import synth
from vitrify.cli.main import main

ONE = Wire(1.0)


def _module(**cells: dict[str, Any]) -> dict[str, Any]:
    return {"ports": {"clk": {"direction": "input", "bits": [2]}}, "cells": cells, "netnames": {}}


def _ff(data: int, out: int) -> dict[str, Any]:
    return cell("FDRE", {"C": 2, "CE": "1", "D": data, "R": "0"}, {"Q": out}, {})


def _lut(kind: str, out: int, *inputs: int | str) -> dict[str, Any]:
    return cell(kind, {f"I{n}": bit for n, bit in enumerate(inputs)}, {"O": out}, {})


def _carry4(
    carry: int | str, sums: list[int | str], out: list[int], up: list[int],
) -> dict[str, Any]:
    one = cell("CARRY4", {"CI": carry, "CYINIT": "0"}, {}, {})
    one["port_directions"] |= {"S": "input", "DI": "input", "O": "output", "CO": "output"}
    one["connections"] |= {"S": sums, "DI": ["0"] * 4, "O": out, "CO": up}
    return one


def test_register_to_register() -> None:
    found = longest_path(_module(a=_ff(11, 10), b=_ff(10, 11)), ONE)
    assert found.period_ns == pytest.approx(0.303 + 1.0)
    assert (found.levels, found.carries, found.wires, found.fanout) == (0, 0, 1, 1)


def test_two_levels() -> None:
    """The last LUT is beside its register: no wire between them.  Inputs have their own delays."""
    module = _module(a=_ff(13, 10), x=_lut("LUT2", 11, 10, "0"), y=_lut("LUT3", 12, "0", "1", 11),
                     b=_ff(12, 13))
    found = longest_path(module, ONE)
    assert found.period_ns == pytest.approx(0.303 + 1.0 + 0.238 + 1.0 + 0.127)
    assert (found.levels, found.wires) == (2, 2)
    assert found.cells == ("a", "x", "y", "b")


def test_wires_with_many_readers_are_slower() -> None:
    few = _module(a=_ff(12, 10), b=_ff(10, 12))
    many = _module(a=_ff(12, 10), **{f"b{n}": _ff(10, 12 + n) for n in range(8)})
    wire = Wire(1.0, 0.5)
    assert longest_path(few, wire).period_ns == pytest.approx(1.303)
    found = longest_path(many, wire)
    assert found.period_ns == pytest.approx(1.303 + 3 * 0.5)
    assert found.fanout == 8
    # Beyond what is copied, no slower.
    assert wire.delay(1000) == wire.delay(32)


def test_carry_chain() -> None:
    """One level to enter, then a small share for each cell of the chain; no wires between them."""
    cells = {"a": _ff(47, 10), "x": _lut("LUT2", 11, 10, "1"), "b": _ff(47, 90)}
    carry: int | str = "0"
    for n in range(4):
        nets = list(range(20 + 8 * n, 28 + 8 * n))
        cells[f"c{n}"] = _carry4(carry, [11 if n == 0 else "0"] * 4, nets[:4], nets[4:])
        carry = nets[7]
    # Net 47 is the last bit of the last sum.
    found = longest_path(_module(**cells), ONE)
    assert found.period_ns == pytest.approx(0.303 + 1.0 + 0.238 + 0.51 + 2 * 0.114 + 0.313)
    assert (found.levels, found.carries) == (2, 3)


def test_a_sum_depends_on_no_bit_above() -> None:
    """Bit 3 of a chain may be made of its bit 0: no loop."""
    chain = _carry4("0", [10, 10, 10, 11], [20, 21, 22, 23], [24, 25, 26, 27])
    cells = {"a": _ff(23, 10), "c": chain, "x": _lut("LUT2", 11, 20, "1")}
    assert longest_path(_module(**cells), ONE).levels == 3


def test_memories_and_multipliers() -> None:
    """Registers inside end a path; what has none is a way through."""
    def dsp(**registers: int) -> dict[str, Any]:
        given = {name: f"{value:032b}" for name, value in registers.items()}
        return cell("DSP48E1", {"CLK": 2, "A": 10, "B": 10}, {"P": 11}, given)

    off = {"AREG": 0, "BREG": 0, "CREG": 1, "DREG": 1}
    through = _module(a=_ff(11, 10), m=dsp(**off, MREG=0, PREG=0), b=_ff(11, 12))
    assert longest_path(through, ONE).period_ns == pytest.approx(0.303 + 1 + 2.823 + 1)
    held = _module(a=_ff(11, 10), m=dsp(**off, MREG=1, PREG=1), b=_ff(11, 12))
    assert longest_path(held, ONE).period_ns == pytest.approx(0.303 + 1 + 1.416)
    read = cell("RAMB36E1", {"CLKARDCLK": 2, "ADDRARDADDR": 10}, {"DOADO": 11}, {})
    found = longest_path(_module(a=_ff(11, 10), m=read, b=_ff(11, 12)), ONE)
    assert found.period_ns == pytest.approx(2.454 + 1)
    lattice = cell("MULT18X18D", {"A0": 10, "B0": 10}, {"P0": 11}, {})
    flop = cell("TRELLIS_FF", {"CLK": 2, "DI": 11}, {"Q": 10}, {})
    module = _module(a=flop, m=lattice)
    assert longest_path(module, ONE).period_ns == pytest.approx(0.525 + 1 + 3.927 + 1)
    lattice["parameters"] = {"REG_OUTPUT_CLK": "CLK0"}
    assert longest_path(module, ONE).period_ns == pytest.approx(0.525 + 1 + 3.927)


def test_a_port_starts_a_path() -> None:
    module = _module(x=_lut("LUT2", 11, 5, "1"), b=_ff(11, 12))
    found = longest_path(module, ONE)
    assert found.period_ns == pytest.approx(1.0 + 0.238)
    assert found.cells == ("x", "b")


@pytest.mark.parametrize(("cells", "message"), [
    ({"x": _lut("LUT2", 11, 12, "1"), "y": _lut("LUT2", 12, 11, "1"), "b": _ff(11, 13)},
     "combinational loop.* x, y"),
    ({"z": cell("GBUF", {"I": 10}, {"O": 11}, {})}, "cell 'z' is of type 'GBUF', of which no"),
    ({"x": _lut("LUT1", 11, 10)}, "no path from a register"),
])
def test_what_cannot_be_told(cells: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        longest_path(_module(**cells), ONE)


def _netlist(work: Path, **cells: dict[str, Any]) -> None:
    (work / "netlist.json").write_text(json.dumps({"modules": {"core": _module(**cells)}}))


def test_range(tmp_path: Path) -> None:
    """The calibrated factors are its ends on ECP5; it is wider where nothing has been placed."""
    flops = {n: cell("TRELLIS_FF", {"CLK": 2, "M": a}, {"Q": b}, {})
             for n, a, b in (("a", 11, 10), ("b", 10, 11))}
    _netlist(tmp_path, **flops)
    factors = sorted(factor for _, factor in CALIBRATION.values())
    found = clock_range(tmp_path, "core", "ecp5")
    assert found.slow_mhz == pytest.approx(1e3 / (0.525 + factors[-1] * LAW.base))
    assert found.fast_mhz == pytest.approx(1e3 / (0.525 + factors[0] * LAW.base))
    _netlist(tmp_path, a=_ff(11, 10), b=_ff(10, 11))
    seven, ultra = (clock_range(tmp_path, "core", family) for family in ("xc7", "xcup"))
    assert seven.fast_mhz / seven.slow_mhz > found.fast_mhz / found.slow_mhz
    assert ultra.slow_mhz > seven.slow_mhz
    assert str(seven).endswith(f"on {len(CALIBRATION)} placed ECP5 designs; not placed")


def test_a_netlist_that_is_not_understood_does_not_lose_the_resources(tmp_path: Path) -> None:
    assert "no netlist" in synth.levels(tmp_path, "core", "xc7")["clock_unknown"]
    _netlist(tmp_path, a=_ff(11, 10), b=_ff(10, 11))
    told = synth.levels(tmp_path, "core", "xc7")["clock_range"]
    assert told["slow_mhz"] < told["fast_mhz"]
    assert "0 levels, 0 carries, at most 1 reader a wire" in told["words"]


def test_the_command_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    def synthesise(_arch: object, _verilog: object, top: str, work: Path) -> Resources:
        module = _module(a=_ff(11, 10), b=_ff(10, 11))
        (work / "netlist.json").write_text(json.dumps({"modules": {top: module}}))
        return Resources(ffs=2)

    (tmp_path / "pynq-z2").mkdir()
    monkeypatch.setattr("vitrify.rtl.emit.emit", lambda _arch, folder: folder / "core.v")
    monkeypatch.setattr("vitrify.boards.synthesis.synthesise", synthesise)
    command = ["synth", "--arch", "pynq-z2", "-o", str(tmp_path)]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "pynq-z2: clock" in said
    assert "MHz by levels (longest path: 0 levels" in said
    assert main([*command, "--json"]) == 0
    report, = json.loads(capsys.readouterr().out)
    assert report["clock_range"]["slow_mhz"] < report["clock_range"]["fast_mhz"]
    assert report["clock_range"]["path"]["cells"] in (["a", "b"], ["b", "a"])
