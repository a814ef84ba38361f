"""Boards with open tools: pins, wires that a board ties, what their descriptions promise."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.boards.test_shared_memory import Copier
from vitrify.arch.boards import BOARDS, STANDALONE_BOARDS, board, standalone
from vitrify.arch.errors import BackendError, ConfigError
from vitrify.arch.presets import preset
from vitrify.boards import bitstream
from vitrify.boards import standalone as module
from vitrify.boards.bitstream import constraints, top_verilog
from vitrify.boards.ecp5 import CHIPS
from vitrify.boards.memory import require_bus
from vitrify.boards.pll import dividers
from vitrify.boards.standalone import divisor, ports
from vitrify.boards.synthesis import Resources, Timing
from vitrify.cli.main import main
from vitrify.selftest import speed


@pytest.mark.parametrize("name", STANDALONE_BOARDS)
def test_every_port_has_a_site(name: str) -> None:
    text = constraints(name, f"{name}.lpf").read_text()
    located = re.findall(
        r'^LOCATE COMP "(\w+)(?:\[(\d+)\])?" SITE "(\w+)"; IOBUF PORT "(.*?)" IO_TYPE', text, re.M)
    assert Counter(port for port, *_ in located) == ports(standalone(board(name)))
    bits = [f"{port}[{bit}]" if bit else port for port, bit, *_ in located]
    assert bits == [buffer for *_, buffer in located]
    assert len(set(bits)) == len({site for _, _, site, _ in located}) == len(bits)
    assert f'FREQUENCY PORT "clk" {standalone(board(name)).oscillator_mhz:.1f} MHz' in text


@pytest.mark.parametrize("name", STANDALONE_BOARDS)
def test_a_long_read_is_as_fast_as_its_efficiency_says(name: str) -> None:
    """Nothing besides: not a latency before each burst, of which there is one at a time."""
    arch = preset(name)
    job = speed.loads(arch)
    rate = speed.as_program(arch, job).dram_bytes / speed.predicted(arch, job)
    assert rate == pytest.approx(arch.dram_bytes, rel=0.03)


@pytest.mark.parametrize("name", STANDALONE_BOARDS)
def test_the_top_has_those_ports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With something small in the place of the core."""
    monkeypatch.setattr(module, "Core", Copier)
    around, clock = standalone(board(name)), board(name).clock_mhz
    text = top_verilog(module.Top(around, preset(name), dividers(around.oscillator_mhz, clock)))
    top = text[text.index("module top("):].split("endmodule")[0]
    found = re.findall(r"^  (?:input|output|inout) (?:\[(\d+):0\] )?(\w+);", top, re.M)
    widths = {port: int(high or 0) + 1 for high, port in found}
    assert widths == ports(around)
    for pin in (around.led, around.reset):
        inside = re.search(rf"^module \\top\.pad_{pin} .*?^endmodule", text, re.M | re.S)
        assert inside
        assert ("~" in inside[0]) == pin.endswith("_n"), "inverted if it is low when active"


@pytest.mark.parametrize("name", STANDALONE_BOARDS)
def test_the_preset_is_for_the_board(name: str) -> None:
    found, arch = board(name), preset(name)
    around = standalone(found)
    found.require(arch)
    assert (arch.clock_mhz, arch.part, arch.bus_bytes) == (
        found.clock_mhz, found.part, around.sdram.bytes)
    assert dividers(around.oscillator_mhz, found.clock_mhz).mhz == found.clock_mhz
    # Sampled in the middle of a bit, ten bits may be half a bit off.
    cycles = divisor(found.clock_mhz, around.baud)
    assert abs(found.clock_mhz * 1e6 / around.baud / cycles - 1) < 0.02
    # A burst does not leave its row.
    assert arch.burst_beats * arch.bus_bytes <= around.sdram.row_bytes
    layout = CHIPS[found.part.name]
    assert len(layout.ram_places) * len(layout.ram_rows) == found.part.brams
    assert 4 * len(layout.multiplier_blocks) == found.part.dsps
    assert 0.97 * found.part.luts < len(layout.rows) * len(layout.columns) * 8 <= found.part.luts


def test_a_zynq_is_not_standalone() -> None:
    with pytest.raises(ConfigError, match="kv260 has a processing system; the boards without are "
                                          "ulx3s, colorlight-i9, schoko"):
        standalone(BOARDS["kv260"])


def test_the_bus_is_as_wide_as_the_memory() -> None:
    with pytest.raises(ConfigError, match="a 32-bit SDRAM needs bus_bytes 4, not 2"):
        require_bus(preset("ulx3s"), standalone(board("colorlight-i9")).sdram)


def test_a_build_says_first_whether_the_clock_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half an hour before nextpnr does; and that the architecture is for another part."""
    def build(*_: object, **__: object) -> None:
        raise BackendError("nextpnr failed")

    monkeypatch.setattr("vitrify.boards.bitstream.build", build)
    said = {}
    for arch in ("colorlight-i9", "nano"):
        command = ["build", "--board", "colorlight-i9", "--arch", arch, "-o", str(tmp_path)]
        assert main(command) == 2
        captured = capsys.readouterr()
        said[arch] = captured.out + captured.err
        assert "the clock of colorlight-i9, 75 MHz: met by nextpnr" in said[arch]
    other = "arch 'nano' names the part LFE5U-85F; it is built for the board's, LFE5U-45F"
    assert other in " ".join(said["nano"].split())
    assert "names the part" not in said["colorlight-i9"]


@pytest.mark.parametrize(("name", "seed"), [("ulx3s", None), ("schoko", None), ("schoko", 7)])
def test_a_bitstream_has_the_board_s_seed(
    name: str, seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless one is asked for; without the clock there is none, with a way out in the sentence."""
    reached, around = [board(name).clock_mhz], standalone(board(name))

    def route(_work: Path, _top: str, _part: object, package: str, options: list[str],
              target: float) -> Timing:
        assert package == around.package
        asked = around.seed if seed is None else seed
        assert [*options[options.index("--seed"):]] == ["--seed", str(asked), *around.nextpnr]
        return Timing(reached[0], target, ())

    def pack(_tool: str, arguments: list[str], work: Path, _log: str) -> None:
        (work / arguments[-1]).write_bytes(b"bits")

    monkeypatch.setattr(module, "Core", Copier)
    monkeypatch.setattr(bitstream, "synthesise", lambda *_: Resources(luts=1))
    monkeypatch.setattr(bitstream, "route", route)
    monkeypatch.setattr(bitstream, "run_tool", pack)
    report = bitstream.build(board(name), preset(name), tmp_path, seed=seed)
    assert report["bitstream"]["bytes"] == 4
    assert report["seed"] == (around.seed if seed is None else seed)
    reached[0] = 40.0
    with pytest.raises(BackendError, match=r"reaches 40\.0 MHz .* with --clock 39, or another"):
        bitstream.build(board(name), preset(name), tmp_path, seed=seed)
    assert not (tmp_path / f"{name}.bit").exists()
