"""``vitrify completion``: commands, options and files by the tab key."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_SHELLS = ("bash", "zsh")


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "completion",
        help="print what completes commands and options in a shell",
        description="Print a script for bash (`vitrify completion bash > "
        "~/.local/share/bash-completion/completions/vitrify`) or zsh (a file _vitrify in a folder "
        "of $fpath).",
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    import shtab

    from .main import COMMANDS, parser

    top = parser(*COMMANDS)
    for one in top.commands.values():
        for action in one._actions:
            if action.type is Path:
                vars(action)["complete"] = shtab.FILE  # an attribute that only shtab knows
    print(shtab.complete(top, options.shell))
