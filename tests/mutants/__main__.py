"""Which small faults no test notices: ``python -m tests.mutants [--match PATH] [--only 3,7-9]``.

Each line of ``table.tsv`` is a fault: a file, a piece of text that occurs in it once, and what
stands there instead; and, where it changes nothing, why.  One at a time goes into a copy of the
sources, and the nearest tests run on it, the narrowest first, until one fails; each of them has
passed on a copy without a fault before.  A survivor is a line that needs a test, or a reason;
``slow`` hung or took many times as long as without the fault; ``stale`` are lines whose text is
gone.  The whole survey takes hours and is no part of ``make test``; with ``--results FILE`` it
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.tsv")
COPIED = ("hw", "sw", "sim", "tests", "models", "bench", "pyproject.toml")
#: Simulators built for the copies; their names are digests of the Verilog.
BUILD = ROOT / "build" / "mutants"
#: Longest run of a test in seconds; with a fault, that of the run without one times _PATIENCE.
_LIMIT = 1_200
_PATIENCE, _LEAST = 5, 300

_GRAPHS = "tests/fuzz/test_graphs.py::test_programs_on_golden_are_the_integer_graphs"
_COMPILER = ("tests/unit/compiler", _GRAPHS, "tests/unit/ops")
_CORE = ("tests/cosim/test_core.py", "tests/cosim/test_experts.py")
#: The nearest tests by the beginning of a path, the narrowest first; the first path that fits.
NEAREST: dict[str, tuple[str, ...]] = {
    "sim/vitrify/golden/ops": ("tests/unit/golden",),
    "sim/vitrify/golden/experts": ("tests/unit/golden", "tests/unit/compiler/test_experts.py",
                                   *_COMPILER),
    "sim/vitrify/golden": ("tests/unit/golden", _GRAPHS, *_COMPILER),
    "sw/vitrify/quant": (*(f"tests/unit/quant/test_{name}.py"
                           for name in ("scheme", "requant", "quantise", "precision")),
                         "tests/unit/quant", "tests/unit/ops"),
    "sw/vitrify/codegen/pack": ("tests/unit/compiler/test_pack.py", *_COMPILER),
    "sw/vitrify/codegen/alloc": ("tests/unit/compiler/test_alloc.py", *_COMPILER),
    "sw/vitrify/codegen/builder": ("tests/unit/compiler/test_row_lists.py", *_COMPILER),
    "sw/vitrify/compiler/compile": ("tests/unit/compiler/test_preload.py", *_COMPILER),
    "sw/vitrify/codegen/portions": ("tests/unit/compiler/test_preload.py", *_COMPILER),
    "sw/vitrify/codegen/preload": ("tests/unit/compiler/test_preload.py", *_COMPILER),
    "sw/vitrify/ops/experts": ("tests/unit/compiler/test_experts.py", *_COMPILER),
    "sw/vitrify/ops/attention": ("tests/unit/ops/test_attention.py", *_COMPILER),
    "sw/vitrify": (_GRAPHS, *_COMPILER),
    "hw/vitrify/rtl/array": ("tests/cosim/test_accumulator.py", "tests/cosim/test_matrix.py",
                             *_CORE),
    "hw/vitrify/rtl/control/run_ahead": ("tests/formal/test_formal.py::test_holds[run ahead]",
                                         "tests/cosim/test_control.py"),
    **{f"hw/vitrify/rtl/{unit}": (f"tests/cosim/{first}", f"tests/cosim/{first.partition('::')[0]}",
                                  *_CORE)
       for unit, first in {
           "units/fetch": "test_fetch.py::test_fetch[nano]",
           "units/loader": "test_loader.py",
           "units/tile_": "test_loader.py",
           "units/epilogue": "test_epilogue.py::test_epilogue[nano]",
           "units/commit": "test_epilogue.py::test_epilogue[nano]",
           "units/mov": "test_mover.py::test_mover[nano]",
           "units/route": "test_router.py::test_router[nano]",
           "control": "test_control.py::test_control[control_bench]",
       }.items()},
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


def survey(mutant: Mutant, most: int | None = None) -> tuple[str, str]:
    """``killed``, ``survives``, ``slow``, ``stale`` or ``equivalent``, and the test or reason.

    At most the ``most`` narrowest of its tests run.

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
        for test in mutant.tests[:most]:
            taken = sound(test)
            if taken is None:
                raise UnsoundError(f"{test} fails without a fault, too")
            passes = _passes(root, test, max(_LEAST, min(_PATIENCE * taken, _LIMIT)))
            if not passes:
                return "slow" if passes is None else "killed", test
        return "survives", ""


@functools.cache
def sound(test: str) -> float | None:
    """Seconds that it takes on a copy without a fault; ``None``: it does not pass."""
    with _copy() as root:
        start = time.monotonic()
        return time.monotonic() - start if _passes(root, test, _LIMIT) else None


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
        BUILD.mkdir(parents=True, exist_ok=True)
        (root / "build").symlink_to(BUILD)
        yield root


def _passes(root: Path, test: str, limit: float) -> bool | None:
    """Whether ``test`` passes on the sources below ``root``; ``None``: it does not end in time."""
    # In front of the installed sources: packages are found in the copy first.
    places = os.pathsep.join(str(root / name) for name in ("hw", "sw", "sim"))
    environment = os.environ | {"PYTHONPATH": places}
    # Benches draw the same numbers for every mutant, and end with what fails.
    environment |= {"VITRIFY_SEED": "1", "COCOTB_MAX_FAILURES": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        try:
            return running.wait(limit) == 0
        except subprocess.TimeoutExpired:
            return None
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)  # the simulator, too


def chosen(only: str, count: int) -> list[int]:
    """Numbers below ``count`` out of ``3,7-9,79-``; all of them if it is empty."""
    numbers: list[int] = []
    for part in only.split(",") if only else ["0-"]:
        first, dash, last = part.partition("-")
        numbers += range(int(first), int(last or count - 1 if dash else first) + 1)
    return [number for number in numbers if number < count]


def recorded(file: Path | None) -> dict[str, str]:
    """Results of earlier runs by the line of the table, which its number is not for good."""
    lines = file.read_text().splitlines() if file and file.is_file() else []
    return {entry["line"]: entry["result"] for entry in map(json.loads, lines)}


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--match", default="", help="only mutants of paths with this in them")
    parser.add_argument("--only", default="", help="only these numbers, in this order: 79-90,3,5-")
    parser.add_argument("--tests", type=int, help="at most so many of the nearest tests for each")
    parser.add_argument("--results", type=Path, metavar="FILE",
                        help="add the results to FILE; what it has as killed does not run again")
    parser.add_argument("--list", action="store_true", help="number and show them, run nothing")
    options = parser.parse_args(arguments)
    counts: collections.Counter[str] = collections.Counter()
    mutants, before = table(), recorded(options.results)
    for number in chosen(options.only, len(mutants)):
        mutant = mutants[number]
        line = "\t".join((mutant.path, mutant.old, mutant.new))
        if options.match not in mutant.path or before.get(line) == "killed":
            continue
        try:
            result, where = ("listed", "") if options.list else survey(mutant, options.tests)
        except UnsoundError as error:
            print(error, file=sys.stderr)
            return 1
        counts[result] += 1
        if options.results and not options.list:
            with options.results.open("a") as file:
                print(json.dumps({"line": line, "result": result, "where": where}), file=file)
        if result == "killed":
            print(f"{number} killed by {where}", file=sys.stderr, flush=True)
        else:
            print(f"{number} {result} {mutant.path} {where}\n  - {mutant.old}\n  + {mutant.new}",
                  flush=True)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
