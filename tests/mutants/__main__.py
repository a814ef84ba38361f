"""Which small faults no test notices: ``python -m tests.mutants [--match PATH] [--from N]``.

Each line of ``table.tsv`` is a fault: a file, a piece of text that occurs in it once, and what
stands there instead; and, where it changes nothing, why.  One at a time goes into a copy of the
sources, and the nearest tests run on it, the narrowest first, until one fails; each of them has
passed on a copy without a fault before.  A survivor is a line that needs a test, or a reason;
``slow`` hung or took too long; ``stale`` are lines whose text is gone.  The whole survey takes
hours; it is no part of ``make test``.
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

_GRAPHS = "tests/fuzz/test_graphs.py::test_programs_on_golden_are_the_integer_graphs"
_COMPILER = ("tests/unit/compiler", _GRAPHS, "tests/unit/ops")
_CORE = ("tests/cosim/test_core.py", "tests/cosim/test_experts.py")
#: The nearest tests by the beginning of a path, the narrowest first; the first path that fits.
NEAREST: dict[str, tuple[str, ...]] = {
    "sim/vitrify/golden/ops": ("tests/unit/golden",),
    "sim/vitrify/golden/experts": ("tests/unit/golden", "tests/unit/compiler/test_experts.py",
                                   *_COMPILER),
    "sim/vitrify/golden": ("tests/unit/golden", _GRAPHS, *_COMPILER),
    "sw/vitrify/quant": ("tests/unit/quant", "tests/unit/ops"),
    "sw/vitrify/codegen/pack": ("tests/unit/compiler/test_pack.py", *_COMPILER),
    "sw/vitrify/codegen/alloc": ("tests/unit/compiler/test_alloc.py", *_COMPILER),
    "sw/vitrify/codegen/preload": ("tests/unit/compiler/test_preload.py", *_COMPILER),
    "sw/vitrify/ops/experts": ("tests/unit/compiler/test_experts.py", *_COMPILER),
    "sw/vitrify/ops/attention": ("tests/unit/ops/test_attention.py", *_COMPILER),
    "sw/vitrify": (_GRAPHS, *_COMPILER),
    "hw/vitrify/rtl/array": ("tests/cosim/test_accumulator.py", "tests/cosim/test_matrix.py",
                             *_CORE),
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
    #: Why it changes nothing that anybody can see.
    reason: str = ""

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
        """The nearest ones, the narrowest first."""
        found = next(tests for start, tests in NEAREST.items() if self.path.startswith(start))
        return tuple(dict.fromkeys(found))


def table() -> list[Mutant]:
    """All mutants."""
    lines = [line for line in TABLE.read_text().splitlines() if line and line[0] != "#"]
    return [Mutant(*line.split("\t")) for line in lines]


class UnsoundError(Exception):
    """Tests that fail without a fault: every mutant would look killed."""


def survey(mutant: Mutant) -> tuple[str, str]:
    """``killed``, ``survives``, ``slow``, ``stale`` or ``equivalent``, and the test or reason.

    Raises
    ------
    UnsoundError
        If one of the tests fails on sources without a fault.
    """
    with _copy() as root:
        if not mutant.apply(root):
            return "stale", ""
        if mutant.reason:
            return "equivalent", mutant.reason
        for test in mutant.tests:
            if not sound(test):
                raise UnsoundError(f"{test} fails without a fault, too")
            passes = _passes(root, test)
            if not passes:
                return "slow" if passes is None else "killed", test
        return "survives", ""


@functools.cache
def sound(test: str) -> bool:
    """Whether it passes on a copy without a fault."""
    with _copy() as root:
        return _passes(root, test) is True


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


def _passes(root: Path, test: str) -> bool | None:
    """Whether ``test`` passes on the sources below ``root``; ``None``: it does not end in time."""
    # In front of the installed sources: packages are found in the copy first.
    places = os.pathsep.join(str(root / name) for name in ("hw", "sw", "sim"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
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
        try:
            result, where = ("listed", "") if options.list else survey(mutant)
        except UnsoundError as error:
            print(error, file=sys.stderr)
            return 1
        counts[result] += 1
        if result == "killed":
            print(f"{number} killed by {where}", file=sys.stderr, flush=True)
        else:
            print(f"{number} {result} {mutant.path} {where}\n  - {mutant.old}\n  + {mutant.new}",
                  flush=True)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
