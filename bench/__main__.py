"""``python -m bench``: measure every available model on its presets; one table, one picture."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import ablation
from bench.cases import CASES, IN_FOUR_BITS, Case
from bench.conditions import current
from bench.figure import draw, draw_ablation
from bench.measure import RESULTS, accuracy, predict, simulate
from bench.networks import NETWORKS
from bench.shapes import SHAPES

EVERYTHING = (*CASES, *IN_FOUR_BITS, *SHAPES, *NETWORKS)

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
                        help="do not simulate; put predicted cycles into the results on file, "
                             "and take them where no simulation is of today's presets")
    parser.add_argument("--ablation", action="store_true",
                        help="only: what each technique is worth, in the estimator")
    parser.add_argument("--show", action="store_true", help="only show the results on file")
    options = parser.parse_args()
    if options.ablation:
        with OUT.status("estimating without techniques"):
            show_ablation(ablation.measure())
        return
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
    runs = [_of_an_image(r) for r in results if "cycles" in r]
    table = Table("model", "arch", title="cycles of a picture, everything included")
    for heading in ("MACs", "cycles", "estimate", "used", "of roofline", "ms", "DRAM MB",
                    "kcycle/s", "build s", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, r in enumerate(runs):
        table.add_row(
            r["model"], r["arch"] + ("" if current(r) else ", stale"), str(r["array_macs"]),
            f"{r['cycles']:,}", _error(r),
            f"{r['utilisation']:.1%}", f"{r['roofline_cycles'] / r['cycles']:.1%}",
            f"{r['cycles'] / r['clock_mhz'] / 1e3:.3f}",
            f"{(r['dram_read_bytes'] + r['dram_write_bytes']) / 1e6:.2f}",
            *_effort(r),
            end_section=runs[number + 1 :] != [] and runs[number + 1]["model"] != r["model"],
        )
    OUT.print(table)
    scores = Table("model", title="accuracy")
    for heading in ("pictures", "float", "integer", "agreement", "KL"):
        scores.add_column(heading, justify="right")
    for r in results:
        if "float_top1" in r:
            name = r["model"] + (f", task {r['task']}" if "task" in r else "")
            scores.add_row(name, str(r["pictures"]), f"{r['float_top1']:.2%}",
                           f"{r['integer_top1']:.2%}", f"{r['agreement']:.2%}", f"{r['kl']:.4f}")
    if scores.row_count:
        OUT.print(scores)
    if runs:
        draw(RESULTS / "utilisation.png", runs)
        OUT.print(f"picture: {RESULTS / 'utilisation.png'}")


def show_ablation(found: dict[str, Any]) -> None:
    """Cycles of every variant beside Edge-MoE's, and the picture."""
    table = Table("M3ViT-T", title="cycles of a picture without techniques")
    cores = found["cores"]
    for name in cores:
        for heading in (name, "ms", "times"):
            table.add_column(heading, justify="right", no_wrap=True)
    for variant in next(iter(cores.values()))["cycles"]:
        cells = []
        for core in cores.values():
            cycles = core["cycles"][variant]
            cells += [f"{cycles:,}", f"{cycles / core['clock_mhz'] / 1e3:.2f}",
                      f"{cycles / core['cycles']['all techniques']:.2f}"]
        table.add_row(variant, *cells)
    OUT.print(table)
    published = Table("Edge-MoE, ZCU102, cumulative", "ms", "times")
    for name, milliseconds in ablation.EDGE_MOE:
        published.add_row(name, str(milliseconds),
                          f"{milliseconds / ablation.EDGE_MOE[-1][1]:.2f}")
    OUT.print(published)
    path = ablation.results().with_suffix(".png")
    draw_ablation(path, found, ablation.EDGE_MOE)
    OUT.print(f"picture: {path}")


def _of_an_image(run: dict[str, Any]) -> dict[str, Any]:
    """A result whose job has several images, for one of them."""
    shared = ("macs", "cycles", "estimated_cycles", "roofline_cycles", "dram_read_bytes",
              "dram_write_bytes")
    return run | {name: round(run[name] / run["images"]) for name in shared if name in run}


def _effort(run: dict[str, Any]) -> tuple[str, str, str]:
    """What the simulation took."""
    if run["backend"] == "estimate":
        return "estimate", "–", "–"
    return (f"{run['cycles_per_second'] / 1e3:,.0f}", f"{run['build_seconds']:.0f}",
            f"{run['peak_memory_mib']:,.0f}")


def _error(run: dict[str, Any]) -> str:
    """How far the estimator is off; nothing to say of its own results."""
    if "estimated_cycles" not in run or run["backend"] == "estimate":
        return "–"
    return f"{run['estimated_cycles'] / run['cycles'] - 1:+.2%}"


if __name__ == "__main__":
    main()
