"""``python -m bench.commands``: what commands take of the processor and of memory.

Each runs in a process of its own with one BLAS thread.  The seconds are those of the processor, of
user and system together: other work on the machine adds some percent to them, not multiples.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cases import CASES, DATA

#: The library variables that say how many threads a matrix product takes.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Cost:
    """Processor seconds of a command and the most memory that it held, in MiB."""

    seconds: float
    memory: float


def cost(arguments: Sequence[str], folder: Path) -> Cost:
    """Run ``vitrify`` with ``arguments`` in ``folder``.

    Raises
    ------
    RuntimeError
        If the command fails, with what it said.
    """
    said = folder / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vitrify.cli", *arguments], cwd=folder, stdout=out,
            stderr=subprocess.STDOUT, env=os.environ | dict.fromkeys(_THREADS, "1"),
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"vitrify {' '.join(arguments)} failed: {said.read_text()}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def commands() -> dict[str, list[str]]:
    """Command lines by what they do; those whose model is not at hand are left out."""
    found = {
        "help": ["--help"],
        "emit kv260": ["emit", "--arch", "kv260", "-o", "core"],
    }
    case = next(case for case in CASES if case.name == "vit_tiny_imagenet")
    if case.available:
        found["compile ViT-tiny"] = [
            "compile", str(case.model), "--arch", "kv260", "-o", "model.vfy", "--calib",
            str(DATA / "imagenet_samples" / "calib"), "--preprocess", case.preprocess,
        ]
    return found


def main() -> None:
    """Print the table."""
    known = commands()
    parser = argparse.ArgumentParser(prog="python -m bench.commands")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"there is no {min(unknown)!r}; there are {', '.join(known)}")
    table = Table("command", "processor s", "MiB")
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            found = cost(known[name], Path(place))
        table.add_row(name, f"{found.seconds:.1f}", f"{found.memory:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
