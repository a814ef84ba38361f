"""Which small faults no test notices: ``python -m tests.mutants [--match PATH] [--from N]``.

Each line of ``table.tsv`` is a fault: a file, a piece of text that occurs in it once, and what
stands there instead.  One at a time goes into a copy of the sources, and the nearest tests run on
it, after they have passed on a copy without a fault.  A survivor is a line that needs a test, or
that changes nothing; ``slow`` hung or took too long; ``stale`` are lines whose text is gone.  The
whole survey takes hours; it is no part of ``make test``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.tsv")
COPIED = ("hw", "sw", "sim", "tests", "models", "bench", "pyproject.toml")
#: Longest run of the tests for one mutant.
_LIMIT = 1_200

_COMPILER = ("tests/unit/compiler", "tests/fuzz/test_graphs.py")
_CORE = ("tests/cosim/test_core.py", "tests/cosim/test_experts.py")
#: The nearest tests by the beginning of a path; the first that fits.
NEAREST: dict[str, tuple[str, ...]] = {
    "sim/vitrify/golden/ops": ("tests/unit/golden",),
    "sim/vitrify/golden": ("tests/unit/golden", *_COMPILER),
    "sw/vitrify/quant": ("tests/unit/quant",),
    "sw/vitrify": _COMPILER,
    "hw/vitrify/rtl/units/fetch": ("tests/cosim/test_fetch.py", *_CORE),
    "hw/vitrify/rtl/units/loader": ("tests/cosim/test_loader.py", *_CORE),
    "hw/vitrify/rtl/units/tile_": ("tests/cosim/test_loader.py", *_CORE),
    "hw/vitrify/rtl/units/epilogue": ("tests/cosim/test_epilogue.py", *_CORE),
    "hw/vitrify/rtl/units/commit": ("tests/cosim/test_epilogue.py", *_CORE),
    "hw/vitrify/rtl/units/mov": ("tests/cosim/test_mover.py", *_CORE),
    "hw/vitrify/rtl/units/route": ("tests/cosim/test_router.py", *_CORE),
    "hw/vitrify/rtl/control": ("tests/cosim/test_control.py", *_CORE),
    "hw/vitrify/rtl": _CORE,
}


@dataclass(frozen=True)
class Mutant:
    """``old``, which occurs in the file once, becomes ``new``."""

    path: str
    old: str
    new: str

    def apply(self, root: Path) -> bool:
        """Change the file below ``root``; whether it has the text once."""
        file = root / self.path
        text = file.read_text() if file.is_file() else ""
        if text.count(self.old) != 1:
            return False
        file.write_text(text.replace(self.old, self.new))
        return True

    @property
    def tests(self) -> tuple[str, ...]:
        """The nearest ones."""
        return next(tests for start, tests in NEAREST.items() if self.path.startswith(start))


def table() -> list[Mutant]:
    """All mutants."""
    lines = [line for line in TABLE.read_text().splitlines() if line and line[0] != "#"]
    return [Mutant(*line.split("\t")) for line in lines]


def survey(mutant: Mutant) -> str:
    """``killed``, ``survives``, ``slow`` or ``stale``."""
    with _copy() as root:
        if not mutant.apply(root):
            return "stale"
        return {True: "survives", False: "killed", None: "slow"}[_passes(root, mutant.tests)]


@functools.cache
def sound(tests: tuple[str, ...]) -> bool:
    """Whether ``tests`` pass on a copy without a fault: else every mutant would look killed."""
    with _copy() as root:
        return _passes(root, tests) is True


@contextlib.contextmanager
def _copy() -> Iterator[Path]:
    """A copy of the sources, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        yield root


def _passes(root: Path, tests: tuple[str, ...]) -> bool | None:
    """Whether ``tests`` pass on the sources below ``root``; ``None``: they do not end in time."""
    # In front of the installed sources: packages are found in the copy first.
    places = os.pathsep.join(str(root / name) for name in ("hw", "sw", "sim"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": places}, timeout=_LIMIT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--match", default="", help="only mutants of paths with this in them")
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first")
    parser.add_argument("--list", action="store_true", help="number and show them, run nothing")
    options = parser.parse_args(arguments)
    counts: collections.Counter[str] = collections.Counter()
    for number, mutant in enumerate(table()):
        if number < options.first or options.match not in mutant.path:
            continue
        if not options.list and not sound(mutant.tests):
            print(f"{' '.join(mutant.tests)} fail without a fault, too", file=sys.stderr)
            return 1
        result = "" if options.list else survey(mutant)
        counts[result] += 1
        if result == "killed":
            print(f"{number} killed", file=sys.stderr)
        else:
            print(f"{number} {result} {mutant.path}\n  - {mutant.old}\n  + {mutant.new}",
                  flush=True)
    print(", ".join(f"{count} {name or 'listed'}" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
