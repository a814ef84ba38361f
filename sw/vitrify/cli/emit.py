"""``vitrify emit``: an architecture to Verilog, a manifest and a resource estimate."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError
from vitrify.arch.estimate import estimate
from vitrify.arch.load import load as load_arch
from vitrify.program.files import write_atomic

from .options import add_arch
from .terminal import say, status

#: Beside the Verilog and its manifest.
ESTIMATE = "estimate.json"


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "emit",
        help="write the Verilog of a core",
        description="Write Verilog, manifest.json and a resource estimate.",
    )
    add_arch(parser)
    parser.add_argument(
        "--ip", action="store_true",
        help="an IP of Vivado: component.xml and the clock's constraint as well",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: build/NAME")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    arch = load_arch(options.arch)
    folder = options.output or Path("build") / arch.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    with status(f"elaborating {arch.name}"):
        source = _write(arch, folder, ip=options.ip)
    resources = estimate(arch)
    write_atomic(folder / ESTIMATE, (json.dumps(resources, indent=2) + "\n").encode())
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    say(f"{source}: {arch.macs} multiply-accumulates a cycle, hash {arch.hash:08x}")
    say(f"{folder}: {', '.join(files)}")
    say(f"estimate for {resources['part']}: {summary(resources)}")


def _write(arch: ArchConfig, folder: Path, *, ip: bool) -> Path:
    """The Verilog and what goes with it."""
    if ip:
        from vitrify.boards import ipxact

        return ipxact.write(arch, folder)[0]
    from vitrify.rtl.emit import emit

    return emit(arch, folder)


def summary(resources: dict[str, Any]) -> str:
    """Used and available, on one line."""
    names = {"lut": "LUTs", "ff": "FFs", "dsp": "multipliers", "bram": "block RAMs",
             "uram": "UltraRAMs"}
    return ", ".join(
        f"{resources[key]['used']:,} of {resources[key]['available']:,} {name}"
        + (f" (± {error:.0%})" if (error := resources[key].get("error")) else "")
        for key, name in names.items()
        if resources[key]["available"] or resources[key]["used"]
    )
