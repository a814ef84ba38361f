"""``python -m bench``: measure every available model on its presets; one table, one picture."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cases import CASES
from bench.figure import draw
from bench.measure import RESULTS, accuracy, simulate

OUT = Console()


def main() -> None:
    """Run the chosen measurements and show all results on file."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--arch", action="append", metavar="PRESET")
    parser.add_argument("--accuracy", action="store_true",
                        help="also classify each whole test set (minutes)")
    options = parser.parse_args()
    for case in CASES:
        if options.model and case.name not in options.model:
            continue
        if not case.available:
            OUT.print(f"{case.name}: left out, {case.model} is not here")
            continue
        program = None
        for name in case.presets:
            if options.arch and name not in options.arch:
                continue
            with OUT.status(f"{case.name} on {name}"):
                _, program = simulate(case, name)
        if options.accuracy and program is not None:
            with OUT.status(f"accuracy of {case.name}"):
                accuracy(case, program)
    show()


def show() -> None:
    """Tables of everything in ``bench/results``, and the picture."""
    results: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))
    ]
    runs = [r for r in results if "cycles" in r]
    table = Table("model", "arch", "MACs", "cycles", "roofline", "utilisation", "ms", "read",
                  "written", "Mcycle/s", title="one picture, everything included")
    for r in runs:
        table.add_row(
            r["model"], r["arch"], str(r["array_macs"]), f"{r['cycles']:,}",
            f"{r['roofline_cycles'] / r['cycles']:.1%}", f"{r['utilisation']:.1%}",
            f"{r['cycles'] / r['clock_mhz'] / 1e3:.3f}", f"{r['dram_read_bytes']:,}",
            f"{r['dram_write_bytes']:,}", f"{r['cycles_per_second'] / 1e6:.2f}",
        )
    OUT.print(table)
    scores = Table("model", "pictures", "float", "integer", "agreement", "KL", title="accuracy")
    for r in results:
        if "float_top1" in r:
            scores.add_row(r["model"], str(r["pictures"]), f"{r['float_top1']:.2%}",
                           f"{r['integer_top1']:.2%}", f"{r['agreement']:.2%}", f"{r['kl']:.4f}")
    if scores.row_count:
        OUT.print(scores)
    if runs:
        draw(RESULTS / "utilisation.png", runs)


if __name__ == "__main__":
    main()
