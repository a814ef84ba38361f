"""Units of a core: counted each by itself, and once if cores have them in common."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.boards.synthesis import Resources
from vitrify.boards.units import BETWEEN, identity, synthesise_units, total
from vitrify.cli.main import main

#: A core of two units; one has a shared part twice, the other a part of its own.
CORE = """
module {top}(clk, a, y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  \\{top}.core core (.clk(clk), .a(a), .y(y));
endmodule
module \\{top}.core (clk, a, y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  reg [7:0] y;
  wire [7:0] p;
  wire [7:0] q;
  always @(posedge clk) y <= p ^ q;
  \\{top}.core.first{number} first (.clk(clk), .a(a), .y(p));
  \\{top}.core.second second (.clk(clk), .a(p), .y(q));
endmodule
module \\{top}.core.first{number} (clk, a,
 y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  wire [7:0] b;
  part low (.clk(clk), .a(a), .y(b));
  part high (.clk(clk), .a(b), .y(y));
endmodule
module \\{top}.core.second (clk, a, y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  \\{top}.core.second.inner inner (.clk(clk), .a(a), .y(y));
endmodule
module \\{top}.core.second.inner (clk, a, y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  reg [7:0] y;
  always @(posedge clk) y <= a {operation} 8'd3;
endmodule
module part(clk, a, y);
  input clk;
  input [7:0] a;
  output [7:0] y;
  reg [7:0] y;
  always @(posedge clk) y <= y ^ a;
endmodule
"""


def _units(
    folder: Path, known: dict[str, Resources], arch: str, top: str, **changes: str,
) -> dict[str, Resources]:
    verilog = folder / "core.v"
    verilog.write_text(CORE.format(**{"top": top, "number": "", "operation": "^"} | changes))
    return synthesise_units(preset(arch), verilog, top, folder / top, known)


def test_units_are_counted_by_themselves(tmp_path: Path) -> None:
    units = _units(tmp_path, {}, "nano", "one")
    assert {name: used.ffs for name, used in units.items()} == {
        "first": 16, "second": 8, BETWEEN: 8,
    }
    assert units["first"].luts == 16
    assert next(iter(units)) == "first", "the largest comes first"
    assert total(units).ffs == 32


def test_equal_units_are_synthesised_once(tmp_path: Path) -> None:
    known: dict[str, Resources] = {}
    before = _units(tmp_path, known, "zcu102", "one")
    assert len(known) == 2
    # Amaranth's numbers and the name of the core make no difference; the other unit is new.
    after = _units(tmp_path, known, "zcu102", "two", number="$12$7", operation="+")
    assert len(known) == 3
    assert after["first"] == before["first"]
    assert after[BETWEEN] == before[BETWEEN]
    modules = json.loads((tmp_path / "two" / "stat.json").read_text())["modules"]
    assert {name for name in modules if "first" in name or "part" in name} == set()


def test_units_of_other_families_are_others() -> None:
    modules = {"core.first": "module first", "part": "module part"}
    names = {identity(preset(name), modules, "core.first") for name in ("nano", "pynq-z2", "kv260")}
    assert len(names) == 3
    # The two have the same family, one of them UltraRAM.
    assert identity(preset("zcu102"), modules, "core.first") not in names


def test_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vitrify.rtl.emit.emit", lambda _arch, folder: folder / "core.v")
    monkeypatch.setattr(
        "vitrify.boards.units.synthesise_units",
        lambda *_: {"epilogue": Resources(luts=3000, dsps=2), "fetch": Resources(luts=1000, ffs=7)},
    )
    command = ["synth", "--arch", "nano", "--units", "-o", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4,000 LUTs" in said
    assert re.search(r"fetch\W+1,000\W+7\W+0\W+0\W+0\W+25\.0%", said)
    assert main([*command, "--json"]) == 0
    report, = json.loads(capsys.readouterr().out)
    assert report["units"]["fetch"]["ffs"] == 7
