"""``vitrify emit``: an architecture to Verilog, a manifest and a resource estimate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vitrify.arch.load import load as load_arch

from .options import ERR, OUT, add_arch


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "emit", help="write the Verilog of a core",
        description="Write Verilog, manifest.json and a resource estimate.",
    )
    add_arch(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="default: build/NAME")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    from vitrify.rtl.emit import emit

    arch = load_arch(options.arch)
    folder = options.output or Path("build") / arch.name
    with ERR.status(f"elaborating {arch.name}"):
        emit(arch, folder)
    OUT.print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
