"""``vitrify selftest``: whether the core on a board is the one that was built."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.load import load as load_arch
from vitrify.driver.lock import PATIENCE
from vitrify.runtime.backends.board import connect
from vitrify.selftest import Check, Status, selftest

from .options import add_json
from .terminal import new_table, print_json, say, show, status

#: How a status is written.
_STYLES = {
    Status.PASSED: "green", Status.FAILED: "bold red", Status.DIFFERS: "yellow",
    Status.SKIPPED: "dim",
}
#: What is written over a serial line in a few seconds.
_MEMORY = 1 << 18


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "selftest",
        help="try a core on a board: registers, memory, instructions, speed",
        description="Write and read the core's registers and its memory, run programs of every "
        "instruction and compare their outputs with golden, and measure how fast the core reads "
        "and writes DRAM.  Nobody else may use the core meanwhile; programs in its memory are "
        "loaded again by whoever needs them.",
    )
    parser.add_argument(
        "--backend", required=True, metavar="board:DEVICE",
        help="as in `vitrify run`: board:ulx3s?port=/dev/ttyUSB0, board:uio, "
        "board:pynq?bitfile=FILE, or board:simulation",
    )
    parser.add_argument(
        "--arch", required=True, metavar="PRESET|FILE.yaml", help="what the core was built for"
    )
    parser.add_argument(
        "--memory", type=int, default=_MEMORY, metavar="BYTES",
        help=f"how much of the memory is tried (default: {_MEMORY})",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the data")
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    kind, _, device = options.backend.partition(":")
    if kind != "board" or not device:
        raise InputError(
            f"--backend {options.backend!r} is no board; give board:DEVICE, as in "
            f"board:ulx3s?port=/dev/ttyUSB0 or board:simulation"
        )
    if options.memory < 0 or options.seed < 0:
        raise InputError("--memory and --seed must not be negative")
    arch = load_arch(options.arch)
    checks: list[Check] = []
    with status("connecting") as update:
        transport = connect(device, arch)
        try:
            for check in selftest(
                transport, arch, patience=PATIENCE, memory=options.memory, seed=options.seed
            ):
                checks.append(check)
                update(f"{check.name}: {check.status}")
        finally:
            transport.close()
    if options.json:
        print_json({"arch": arch.name, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    failed = [check.name for check in checks if check.status is Status.FAILED]
    if failed:
        raise BackendError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    if not options.json:
        say(f"the core on {device.partition('?')[0]} is {arch.name!r}, and works")


def _show(checks: list[Check]) -> None:
    from rich.text import Text

    table = new_table(box=None)
    for heading in ("check", "result", "what"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.name, Text(check.status, _STYLES[check.status]), check.detail)
    show(table)
