"""``python -m bench.quantised``: models that ONNX Runtime has quantised, against that file itself.

Every variant of :mod:`bench.quantised_models` is compiled, with calibration images and without, and
compared with ONNX Runtime on the same file, not optimised.  Beside that stands how far the file is
from itself without the quantisers of its activations: what its own rounding amounts to.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from bench import quantised_study
from bench.cases import CASES, Case, Float32
from bench.measure import RESULTS, machine
from bench.quantised_models import VARIANTS, Variant, quantise_file
from bench.quantised_study import CALIBRATION, decibel, logits, same_labels
from vitrify.arch.presets import preset
from vitrify.compiler.driver import quantise_model
from vitrify.frontend import load
from vitrify.ir.run import Evaluator as FloatEvaluator
from vitrify.quant.evaluate import Evaluator

_IMAGES = 1000
#: A small model, a deeper one, and one with experts and tasks.
MODELS = ("digits_vit", "cifar10_vit", "cifar10_moe_vit")


def main() -> None:
    """Measure the chosen models and write result files."""
    parser = argparse.ArgumentParser(prog="python -m bench.quantised", description=__doc__)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--images", type=int, default=_IMAGES, metavar="N")
    parser.add_argument("--study", action="store_true",
                        help="instead: one file without each kind of rounding, and top-1 of all")
    options = parser.parse_args()
    table = Table("model", "file", "kept", "SNR", "labels", "SNR, no images", "labels", "own SNR")
    for case in CASES:
        if case.available and case.name in (options.model or MODELS):
            pictures, labels = case.test()
            images = pictures[: options.images]
            if options.study:
                found = quantised_study.study(case, images, labels[: options.images])
                quantised_study.write(found)
                Console(width=140).print(Markdown(quantised_study.table(found)))
                continue
            rows = [measure(case, variant, images) for variant in VARIANTS]
            for row in rows:
                table.add_row(case.name, *(
                    f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
            folder = RESULTS / "quantised"
            folder.mkdir(parents=True, exist_ok=True)
            result = {"model": case.name, "arch": case.presets[-1], "images": len(images),
                      "rows": rows, "machine": machine()}
            (folder / f"{case.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if table.rows:
        Console(width=120).print(table)


def measure(case: Case, variant: Variant, images: Float32) -> dict[str, Any]:
    """One file: signal-to-noise ratio in dB, equal labels in percent."""
    calibration = case.calibration()
    arch, tasks = preset(case.presets[-1]), 1 + len(case.more_tasks)
    with tempfile.TemporaryDirectory() as folder:
        path, twin = Path(folder) / "model.onnx", Path(folder) / "twin.onnx"
        quantise_file(case.model, path, variant, calibration[: 2 * CALIBRATION], tasks)
        if variant.qonnx:  # ONNX Runtime lacks the operator, and the file is made of this one
            plain = next(v for v in VARIANTS if v.name == variant.name.split(",")[0])
            quantise_file(case.model, twin, plain, calibration[: 2 * CALIBRATION], tasks)
        wanted = logits(FloatEvaluator(load(twin if variant.qonnx else path), ["logits"]),
                        images, tasks)
        row: dict[str, Any] = {"file": variant.name}
        for key, given in (("", calibration[:CALIBRATION]), ("_no_images", None)):
            canonical, graph = quantise_model(path, arch, given, preprocess=case.preprocess)
            found = Evaluator(graph, arch).outputs(images)["logits"][:, 0]
            if not key:
                kept = sum(not told["why"] for told in graph.quantisers)
                row["kept"] = f"{kept} of {len(graph.quantisers)}"
                own = logits(FloatEvaluator(canonical, ["logits"]), images, tasks)
            row |= {f"snr{key}": decibel(wanted, found),
                    f"labels{key}": same_labels(wanted, found)}
        row["own_snr"] = decibel(wanted, own)
    return row


if __name__ == "__main__":
    main()
