"""Bitstreams of standalone boards: Verilog, Yosys, nextpnr, ecppack; resources and timing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrify.arch.boards import Board, standalone
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError, ConfigError
from vitrify.rtl.lib.shared import to_verilog

from .memory import require_bus
from .pll import dividers
from .standalone import Top
from .synthesis import route, run_tool, synthesise

#: Name of the top module.
TOP = "top"


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
    """Verilog of a board with its pads; the top module is called :data:`TOP`."""
    return to_verilog(top, TOP, top.arch.part.family, ports=list(top.ports.values()))


def build(
    board: Board,
    arch: ArchConfig,
    folder: Path,
    *,
    clock_mhz: float | None = None,
    seed: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Make ``BOARD.bit`` in ``folder``, with netlist, logs and ``report.json``.

    Parameters
    ----------
    board : a standalone one
    arch : a core with a bus as wide as the board's memory
    folder : created if it is missing
    clock_mhz : the PLL is set to this (default: the board's), or the next clock below that it can
        make
    seed : of place and route (default: the board's)
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
    around, name = standalone(board), board.name
    clock_mhz = board.clock_mhz if clock_mhz is None else clock_mhz
    seed = around.seed if seed is None else seed
    # What can be wrong is, before a component exists that nobody would elaborate.
    require_bus(arch, around.sdram)
    pll = dividers(around.oscillator_mhz, clock_mhz)
    folder.mkdir(parents=True, exist_ok=True)
    bitstream = folder / f"{name}.bit"
    bitstream.unlink(missing_ok=True)
    arch = dataclasses.replace(arch, clock_mhz=clock_mhz, part=board.part)
    say("elaborating")
    top = Top(around, arch, pll)
    (folder / f"{name}.v").write_text(top_verilog(top))
    shutil.copyfile(constraints(name, f"{name}.lpf"), folder / f"{name}.lpf")
    say("synthesising")
    used = synthesise(arch, folder / f"{name}.v", TOP, folder)
    if too_much := used.exceeds(arch.part):
        raise ConfigError(
            f"arch {arch.name!r} does not fit {arch.part.name}: {', '.join(too_much)}"
        )
    say("placing and routing")
    reached = route(folder, TOP, arch.part, around.package, [
        "--lpf", f"{name}.lpf", "--textcfg", f"{name}.config", "--seed", str(seed),
        *around.nextpnr,
    ], pll.mhz)
    report = {
        "board": name, "arch": arch.name, "macs": arch.macs, "arch_hash": f"{arch.hash:08x}",
        "part": asdict(arch.part), "used": asdict(used), "timing": asdict(reached), "seed": seed,
    }
    if reached.achieved_mhz < pll.mhz:
        _write(folder, report)
        raise BackendError(
            f"the design reaches {reached.achieved_mhz:.1f} MHz of the {pll.mhz:g} MHz asked "
            f"for; build with --clock {int(reached.achieved_mhz * 0.98)}, or another --seed"
        )
    say("packing")
    run_tool("yowasp_ecppack", [
        "--compress", f"{name}.config", bitstream.name,
    ], folder, "route.log")
    report["bitstream"] = {"file": bitstream.name, "bytes": bitstream.stat().st_size}
    report["load"] = f"{around.load} {bitstream}"
    _write(folder, report)
    return report


def _write(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
