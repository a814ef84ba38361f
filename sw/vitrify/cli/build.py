"""``vitrify build``: a bitstream by open tools, or a package for the vendor's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vitrify.arch.boards import BOARDS, STANDALONE_BOARDS, Board
from vitrify.arch.boards import board as find_board
from vitrify.arch.errors import InputError
from vitrify.arch.load import load as load_arch

from .terminal import say, status


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "build",
        help="build a core for a board",
        description=f"{', '.join(STANDALONE_BOARDS)}: a bitstream, with Yosys and nextpnr (up to "
        "half an hour).  Zynq boards: an IP package, constraints and a Tcl script that makes the "
        "project and its bitstream in Vivado.",
    )
    parser.add_argument("--board", required=True, metavar="|".join(BOARDS))
    parser.add_argument(
        "--arch", metavar="PRESET|FILE.yaml", help="default: the preset of the board's name"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: build/BOARD")
    parser.add_argument(
        "--clock", type=float, metavar="MHZ", help="clock of the core (default: the board's)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N",
        help="of place and route, where it is done here (default: one that meets the board's "
        "clock with the preset's core)",
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    board = find_board(options.board)
    if options.clock is not None and not 1 <= options.clock <= 1000:
        raise InputError(f"--clock must be 1 to 1000 MHz, not {options.clock:g}")
    arch = load_arch(options.arch or board.name)
    folder = options.output or Path("build") / board.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    if board.standalone:
        _bitstream(board, arch, folder, options)
    else:
        _package(board.name, arch, folder, options.clock)


def _bitstream(board: Board, arch: Any, folder: Path, options: argparse.Namespace) -> None:
    from vitrify.boards.bitstream import build

    say(f"the clock of {board.name}, {board.clock_mhz:g} MHz: {board.clock_from}")
    if arch.part != board.part:
        say(f"arch {arch.name!r} names the part {arch.part.name}; it is built for the board's, "
            f"{board.part.name}")
    with status("starting") as update:
        report = build(
            board, arch, folder, clock_mhz=options.clock, seed=options.seed, say=update
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
