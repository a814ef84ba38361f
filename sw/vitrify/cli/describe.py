"""``vitrify describe``: the reference document, rendered from the contract."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vitrify.arch.describe import reference
from vitrify.program.files import check_writable, write_atomic


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "describe",
        help="print the instruction set, registers and formats as Markdown",
        description="Render the reference tables from the contract.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.md", help="write there instead of stdout"
    )
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    check_writable(options.output)
    if options.output is None:
        print(reference(), end="")
    else:
        write_atomic(options.output, reference().encode())
