"""``python -m bench.commands``: what commands take of the processor and of memory.

Each runs in a process of its own with one BLAS thread.  The seconds are those of the processor, of
user and system together: other work on the machine adds some percent to them, not multiples.
"""

from __future__ import annotations

import argparse
import json
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

#: A process counts the memory of the one that started it as its own: this one is small.
_WATCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


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
    said, used = folder / "said", folder / "used"
    with said.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", _WATCH, used, sys.executable, "-m", "vitrify.cli", *arguments],
            cwd=folder, stdout=out, stderr=subprocess.STDOUT, check=False,
            env=os.environ | dict.fromkeys(_THREADS, "1"),
        )
    if done.returncode:
        raise RuntimeError(f"vitrify {' '.join(arguments)} failed: {said.read_text()}")
    return Cost(*json.loads(used.read_text()))


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
