"""``python -m bench.compare COMMIT``: cycles on file at a commit, and what today's sources take.

A core's memory is that of its board today, and was another when older results were measured.  So
that the difference is the core's and the compiler's alone, today's presets are compiled with the
memory of then: one ideal port as wide as that commit's preset had it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.cases import CASES, IN_FOUR_BITS, ROOT
from bench.measure import cycles_in_rtl, estimated_cycles
from bench.networks import NETWORKS
from bench.shapes import SHAPES
from vitrify.arch.config import ArchConfig
from vitrify.arch.dram import Dram
from vitrify.arch.presets import preset

#: Bytes a cycle, latency and bursts in flight of the ideal memories that results were measured with
#: before boards were described.
_IDEAL = {
    "nano": (4, 20, 4), "reference": (16, 100, 8), "ulx3s": (2, 100, 1), "pynq-z2": (8, 100, 8),
    "kv260": (32, 100, 8), "zcu102": (64, 100, 8),
}


@dataclass(frozen=True)
class Pair:
    """Cycles of a job of one model on one preset, then and now."""

    model: str
    arch: str
    then: int
    now: int

    @property
    def change(self) -> float:
        """Share of the cycles of then that are new (positive) or gone (negative)."""
        return self.now / self.then - 1


def ideal(name: str) -> ArchConfig:
    """The preset with the memory that results without conditions have been measured with."""
    width, latency, outstanding = _IDEAL[name]
    return replace(
        preset(name), bus_bytes=width, ports=1,
        dram=Dram(latency=latency, outstanding=outstanding),
    )


def results(commit: str) -> Iterator[dict[str, Any]]:
    """Simulations under ideal memory in ``bench/results`` at ``commit``."""
    names = _git("ls-tree", "--name-only", commit, "bench/results/").split()
    for name in names:
        result = json.loads(_git("show", f"{commit}:{name}")) if name.endswith(".json") else {}
        if "cycles" in result and "conditions" not in result and result["arch"] in _IDEAL:
            yield result


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def pair(result: dict[str, Any], rtl: bool) -> Pair | None:
    """A result and its like of today, unless its model is not here."""
    known = {case.name: case for case in (*CASES, *IN_FOUR_BITS, *SHAPES, *NETWORKS)}
    case = known.get(result["model"])
    if case is None or not case.available:
        return None
    now = (cycles_in_rtl if rtl else estimated_cycles)(case, case.compile(ideal(result["arch"])))
    return Pair(result["model"], result["arch"], result["cycles"], now)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("commit", help="one of before the boards were described")
    parser.add_argument("--arch", choices=_IDEAL, action="append", help="only this one")
    parser.add_argument("--model", action="append", help="only this one")
    parser.add_argument("--rtl", action="store_true", help="simulate today's, too (minutes each)")
    options = parser.parse_args()
    try:
        known = list(results(options.commit))
    except subprocess.CalledProcessError as error:
        parser.error(f"commit {options.commit!r}: {error.stderr.strip()}")
    if not known:
        parser.error(f"commit {options.commit!r} has no result of an ideal memory; give another")
    table = Table("model", "arch", title=f"cycles of a job, {options.commit} and now")
    for heading in ("then, RTL", f"now, {'RTL' if options.rtl else 'estimate'}", "change"):
        table.add_column(heading, justify="right")
    wanted = [
        result for result in known
        if result["arch"] in (options.arch or _IDEAL)
        and result["model"] in (options.model or [result["model"]])
    ]
    for result in track(wanted, "compile", console=Console(stderr=True)):
        found = pair(result, options.rtl)
        if found:
            table.add_row(found.model, found.arch, f"{found.then:,}", f"{found.now:,}",
                          f"{found.change:+.2%}")
    Console(width=max(Console().width, 100)).print(table)


if __name__ == "__main__":
    main()
