"""``python -m bench.weights``: what weights of four bits cost, over whole test sets.

Integer graphs are evaluated with the golden kernels, which give what golden machine and core give.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cases import CASES, Case
from bench.measure import RESULTS, machine
from vitrify.arch.presets import PRESETS, preset
from vitrify.compiler.driver import quantise_model
from vitrify.ir.run import Evaluator as FloatEvaluator
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.precision import size
from vitrify.quant.wanted import Weights
from vitrify.runtime.accuracy import agreement, scores

#: What of a row is shown; the intervals are in the result file.
_COLUMNS = ("weights", "bits", "bytes", "top1", "agreement", "kl", "seconds")
#: Average bits that ``auto`` is asked for.
_AVERAGE = 5


def main() -> None:
    """Measure the chosen models and write result files."""
    parser = argparse.ArgumentParser(prog="python -m bench.weights", description=__doc__)
    parser.add_argument("--model", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--arch", choices=PRESETS, help="default: the last of each model's")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth picture")
    options = parser.parse_args()
    table = Table("model", "weights", "bits", "bytes", "top-1", "agreement", "KL", "quantise s")
    for case in CASES:
        if case.available and (not options.model or case.name in options.model):
            for row in measure(case, options.arch or case.presets[-1], options.every):
                values = (row[key] for key in _COLUMNS if key in row)
                table.add_row(case.name, *(f"{v:.4f}" if isinstance(v, float) else str(v)
                                           for v in values))
    Console(width=120).print(table)


def measure(case: Case, name: str, every: int) -> list[dict[str, Any]]:
    """Float, eight bits, four, and a mixture of five on average."""
    images, labels = case.test()
    images, labels = images[::every], labels[::every]
    arch, rows = preset(name), []
    exact = None
    full = 0
    for wanted in ("8", "4", "auto"):
        bits = None if wanted == "auto" else int(wanted)
        budget = full * _AVERAGE // 8 if bits is None else None
        began = time.process_time()
        canonical, graph = quantise_model(
            case.model, arch, case.calibration(), preprocess=case.preprocess,
            weights=Weights(bits, None, budget),
        )
        took = time.process_time() - began
        total = sum(map(size, graph.ops))
        full = full or total
        (output,) = graph.outputs
        if exact is None:
            judge = FloatEvaluator(canonical, [output])
            names = [value.name or "" for value in canonical.graph.inputs]
            exact = np.concatenate([
                judge.run({names[0]: images[at : at + 16],
                           **{n: np.zeros(len(images[at : at + 16]), np.int64) for n in names[1:]}})
                [output] for at in range(0, len(images), 16)
            ])
            rows.append({"weights": "float", "bits": 32, "bytes": 4 * total,
                         "top1": scores(exact, labels)["top1"]})
        found = Evaluator(graph, arch).outputs(images)[output][:, 0]
        rows.append({
            "weights": wanted, "bits": 8 * total / full, "bytes": total,
            "top1": scores(found, labels)["top1"], **agreement(exact, found), "seconds": took,
        })
    folder = RESULTS / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    result = {"model": case.name, "arch": arch.name, "images": len(images), "rows": rows,
              "machine": machine()}
    (folder / f"{case.name}_{arch.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
