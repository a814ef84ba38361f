"""``vitrify build``: a bitstream by open tools, or a package for the vendor's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vitrify.arch.boards import BOARDS, ZYNQ_BOARDS
from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch

from .terminal import say, status

#: Boards whose bitstream is made here, by open tools.
OPEN = tuple(name for name in BOARDS if name not in ZYNQ_BOARDS)
#: Boards that get a package for the vendor's tools.
VENDOR = ZYNQ_BOARDS


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "build",
        help="build a core for a board",
        description="ulx3s: a bitstream, with Yosys and nextpnr (half an hour).  Zynq boards: an "
        "IP package, constraints and a Tcl script that makes the project and its bitstream in "
        "Vivado.",
    )
    parser.add_argument("--board", required=True, metavar="|".join(OPEN + VENDOR))
    parser.add_argument(
        "--arch", metavar="PRESET|FILE.yaml", help="default: the preset of the board's name"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: build/BOARD")
    parser.add_argument(
        "--clock", type=float, metavar="MHZ", help="clock of the core (default: the board's)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="ulx3s: of place and route"
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    board = options.board
    if board not in OPEN + VENDOR:
        raise InputError(f"no board is called {board!r}; the boards are {', '.join(OPEN + VENDOR)}")
    if options.clock is not None and not 1 <= options.clock <= 1000:
        raise InputError(f"--clock must be 1 to 1000 MHz, not {options.clock:g}")
    arch = load_arch(options.arch or board)
    folder = options.output or Path("build") / board
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    if board in OPEN:
        _bitstream(arch, folder, options)
    else:
        _package(board, arch, folder, options.clock)


def _bitstream(arch: Any, folder: Path, options: argparse.Namespace) -> None:
    from vitrify.boards.bitstream import CLOCK_MHZ, build

    with status("starting") as update:
        report = build(
            arch, folder, clock_mhz=options.clock or CLOCK_MHZ, seed=options.seed,
            say=update,
        )
    part, used, timing = report["part"], report["used"], report["timing"]
    shown = ", ".join(
        f"{used[name]:,g} of {part[name]:,} {title}"
        for name, title in (("luts", "LUT4"), ("dsps", "multipliers"), ("brams", "block RAMs"))
    )
    say(f"{part['name']}: {shown}")
    say(
        f"clock: {timing['target_mhz']:g} MHz, and the design reaches "
        f"{timing['achieved_mhz']:.1f} MHz"
    )
    say(f"{folder / report['bitstream']['file']}: {report['bitstream']['bytes']:,} bytes")
    say(f"load it with: {report['load']}")


def _package(board: str, arch: Any, folder: Path, clock_mhz: float | None) -> None:
    from vitrify.boards.zynq import package

    with status(f"elaborating {arch.name}"):
        files = package(board, arch, folder, clock_mhz=clock_mhz)
    say(f"{folder}: {', '.join(sorted(str(f.relative_to(folder)) for f in files))}")
    say(f"build it with: vivado -mode batch -source {folder / 'build.tcl'}")
