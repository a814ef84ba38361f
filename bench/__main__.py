"""``python -m bench``: measure every available model on its presets; one table, one picture."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cases import CASES, Case
from bench.figure import draw
from bench.measure import RESULTS, accuracy, predict, simulate
from bench.shapes import SHAPES

EVERYTHING = (*CASES, *SHAPES)

#: Wide enough for every column, also where stdout is a file.
OUT = Console(width=max(Console().width, 140))


def main() -> None:
    """Run the chosen measurements and show all results on file."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", choices=[case.name for case in EVERYTHING], action="append")
    parser.add_argument("--arch", action="append", metavar="PRESET")
    parser.add_argument("--accuracy", action="store_true",
                        help="also classify each whole test set (minutes)")
    parser.add_argument("--estimate", action="store_true",
                        help="do not simulate; put predicted cycles into the results on file")
    parser.add_argument("--show", action="store_true", help="only show the results on file")
    options = parser.parse_args()
    for case in () if options.show else EVERYTHING:
        if options.model and case.name not in options.model:
            continue
        if not case.available:
            OUT.print(f"{case.name}: left out, its model is not here")
            continue
        program = None
        for name in case.presets:
            if options.arch and name not in options.arch:
                continue
            with OUT.status(f"{case.name} on {name}"):
                if options.estimate:
                    predict(case, name)
                else:
                    _, program = simulate(case, name)
        if options.accuracy and program is not None and isinstance(case, Case):
            with OUT.status(f"accuracy of {case.name}"):
                accuracy(case, program)
    show()


def show() -> None:
    """Tables of everything in ``bench/results``, and the picture."""
    results: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))
    ]
    names = [case.name for case in EVERYTHING]
    results.sort(key=lambda r: (names.index(r["model"]), r.get("array_macs", 0)))
    runs = [r for r in results if "cycles" in r]
    table = Table("model", "arch", title="one picture, everything included")
    for heading in ("MACs", "cycles", "estimate", "used", "of roofline", "ms", "DRAM MB",
                    "kcycle/s", "build s", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, r in enumerate(runs):
        table.add_row(
            r["model"], r["arch"], str(r["array_macs"]), f"{r['cycles']:,}", _error(r),
            f"{r['utilisation']:.1%}", f"{r['roofline_cycles'] / r['cycles']:.1%}",
            f"{r['cycles'] / r['clock_mhz'] / 1e3:.3f}",
            f"{(r['dram_read_bytes'] + r['dram_write_bytes']) / 1e6:.2f}",
            f"{r['cycles_per_second'] / 1e3:,.0f}", f"{r['build_seconds']:.0f}",
            f"{r['peak_memory_mib']:,.0f}",
            end_section=runs[number + 1 :] != [] and runs[number + 1]["model"] != r["model"],
        )
    OUT.print(table)
    scores = Table("model", title="accuracy")
    for heading in ("pictures", "float", "integer", "agreement", "KL"):
        scores.add_column(heading, justify="right")
    for r in results:
        if "float_top1" in r:
            scores.add_row(r["model"], str(r["pictures"]), f"{r['float_top1']:.2%}",
                           f"{r['integer_top1']:.2%}", f"{r['agreement']:.2%}", f"{r['kl']:.4f}")
    if scores.row_count:
        OUT.print(scores)
    if runs:
        draw(RESULTS / "utilisation.png", runs)
        OUT.print(f"picture: {RESULTS / 'utilisation.png'}")


def _error(run: dict[str, Any]) -> str:
    """How far the estimator is off."""
    if "estimated_cycles" not in run:
        return "–"
    return f"{run['estimated_cycles'] / run['cycles'] - 1:+.2%}"


if __name__ == "__main__":
    main()
