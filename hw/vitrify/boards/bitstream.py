"""Bitstream of the ULX3S: Verilog, Yosys, nextpnr, ecppack; resources and timing on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrify.arch.boards import BOARDS
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError, ConfigError
from vitrify.rtl.lib.shared import to_verilog

from .memory import require_bus
from .pll import dividers
from .synthesis import Resources, Timing, route, run_tool, synthesise
from .ulx3s import OSCILLATOR_MHZ, Top

NAME = "ulx3s"
#: The clock that a build asks for: some way below what the core reaches alone.
CLOCK_MHZ = BOARDS[NAME].clock_mhz
#: What loads the bitstream.
LOAD = "openFPGALoader --board ulx3s"


def constraints(board: str, file: str) -> Path:
    """A constraint file of the repository, or of the installed package.

    Raises
    ------
    BackendError
        If it is in neither.
    """
    here = Path(__file__).resolve()
    for root in (here.parent, here.parents[3]):
        path = root / "constraints" / board / file
        if path.is_file():
            return path
    raise BackendError(f"there is no constraint file {board}/{file}; reinstall vitrify")


def top_verilog(top: Top) -> str:
    """Verilog of a board with its pads; the top module is called :data:`NAME`."""
    return to_verilog(top, NAME, top.arch.part.family, ports=list(top.ports.values()))


def build(
    arch: ArchConfig,
    folder: Path,
    *,
    clock_mhz: float = CLOCK_MHZ,
    seed: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Make ``ulx3s.bit`` in ``folder``, with netlist, logs and ``report.json``.

    Parameters
    ----------
    arch : a core with a bus of 2 bytes
    folder : created if it is missing
    clock_mhz : the PLL is set to this, or the next clock below that it can make
    seed : of place and route
    say : told what takes time

    Returns
    -------
    The report: part, resources, clock set and clock reached, bytes of the bitstream.

    Raises
    ------
    ConfigError
        If the core does not fit the part or its bus the memory.
    BackendError
        If a tool is missing or fails, or the clock is not reached: then there is no bitstream.
    """
    # What can be wrong is, before a component exists that nobody would elaborate.
    require_bus(arch)
    pll = dividers(OSCILLATOR_MHZ, clock_mhz)
    folder.mkdir(parents=True, exist_ok=True)
    bitstream = folder / f"{NAME}.bit"
    bitstream.unlink(missing_ok=True)
    arch = dataclasses.replace(arch, clock_mhz=clock_mhz)
    say("elaborating")
    top = Top(arch, pll)
    (folder / f"{NAME}.v").write_text(top_verilog(top))
    shutil.copyfile(constraints(NAME, f"{NAME}.lpf"), folder / f"{NAME}.lpf")
    say("synthesising")
    used = synthesise(arch, folder / f"{NAME}.v", NAME, folder)
    if too_much := used.exceeds(arch.part):
        raise ConfigError(
            f"arch {arch.name!r} does not fit {arch.part.name}: {', '.join(too_much)}"
        )
    say("placing and routing")
    reached = route(folder, NAME, [
        "--lpf", f"{NAME}.lpf", "--textcfg", f"{NAME}.config", "--seed", str(seed),
    ], pll.mhz)
    report = _report(arch, used, reached, seed)
    if reached.achieved_mhz < pll.mhz:
        _write(folder, report)
        raise BackendError(
            f"the design reaches {reached.achieved_mhz:.1f} MHz of the {pll.mhz:g} MHz asked "
            f"for; build with --clock {int(reached.achieved_mhz * 0.98)}, or another --seed"
        )
    say("packing")
    run_tool("yowasp_ecppack", [
        "--compress", f"{NAME}.config", bitstream.name,
    ], folder, "route.log")
    report["bitstream"] = {"file": bitstream.name, "bytes": bitstream.stat().st_size}
    report["load"] = f"{LOAD} {bitstream}"
    _write(folder, report)
    return report


def _report(arch: ArchConfig, used: Resources, reached: Timing, seed: int) -> dict[str, Any]:
    return {
        "board": NAME, "arch": arch.name, "macs": arch.macs, "arch_hash": f"{arch.hash:08x}",
        "part": asdict(arch.part), "used": asdict(used), "timing": asdict(reached), "seed": seed,
    }


def _write(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
