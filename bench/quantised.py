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

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cases import CASES, Case, Float32
from bench.measure import RESULTS, machine
from bench.quantised_models import VARIANTS, Variant, quantise_file
from vitrify.arch.presets import preset
from vitrify.compiler.driver import quantise_model
from vitrify.frontend import load
from vitrify.ir.run import Evaluator as FloatEvaluator
from vitrify.quant.evaluate import Evaluator

_IMAGES, _CALIBRATION, _AT_ONCE = 1000, 64, 50


def main() -> None:
    """Measure the chosen models and write result files."""
    parser = argparse.ArgumentParser(prog="python -m bench.quantised", description=__doc__)
    parser.add_argument("--model", choices=[case.name for case in CASES[:3]], action="append")
    parser.add_argument("--images", type=int, default=_IMAGES, metavar="N")
    options = parser.parse_args()
    table = Table("model", "file", "kept", "SNR", "labels", "SNR, no images", "labels", "own SNR")
    for case in CASES[:3]:
        if case.available and (not options.model or case.name in options.model):
            images = case.test()[0][: options.images]
            rows = [measure(case, variant, images) for variant in VARIANTS]
            for row in rows:
                table.add_row(case.name, *(
                    f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
            folder = RESULTS / "quantised"
            folder.mkdir(parents=True, exist_ok=True)
            result = {"model": case.name, "arch": case.presets[-1], "images": len(images),
                      "rows": rows, "machine": machine()}
            (folder / f"{case.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    Console(width=120).print(table)


def measure(case: Case, variant: Variant, images: Float32) -> dict[str, Any]:
    """One file: signal-to-noise ratio in dB, equal labels in percent."""
    calibration = case.calibration()
    arch, tasks = preset(case.presets[-1]), 1 + len(case.more_tasks)
    with tempfile.TemporaryDirectory() as folder:
        path, twin = Path(folder) / "model.onnx", Path(folder) / "twin.onnx"
        quantise_file(case.model, path, variant, calibration[: 2 * _CALIBRATION], tasks)
        if variant.qonnx:  # ONNX Runtime lacks the operator, and the file is made of this one
            plain = next(v for v in VARIANTS if v.name == variant.name.split(",")[0])
            quantise_file(case.model, twin, plain, calibration[: 2 * _CALIBRATION], tasks)
        wanted = _run(FloatEvaluator(load(twin if variant.qonnx else path), ["logits"]),
                      images, tasks)
        row: dict[str, Any] = {"file": variant.name}
        for key, given in (("", calibration[:_CALIBRATION]), ("_no_images", None)):
            canonical, graph = quantise_model(path, arch, given, preprocess=case.preprocess)
            found = Evaluator(graph, arch).outputs(images)["logits"][:, 0]
            if not key:
                kept = sum(not told["why"] for told in graph.quantisers)
                row["kept"] = f"{kept} of {len(graph.quantisers)}"
                own = _run(FloatEvaluator(canonical, ["logits"]), images, tasks)
            row |= {f"snr{key}": decibel(wanted, found),
                    f"labels{key}": 100 * float(np.mean(wanted.argmax(1) == found.argmax(1)))}
        row["own_snr"] = decibel(wanted, own)
    return row


def _run(judge: FloatEvaluator, images: np.ndarray, tasks: int) -> np.ndarray:
    parts = []
    for at in range(0, len(images), _AT_ONCE):
        some = images[at : at + _AT_ONCE]
        feed = {"image": some}
        if tasks > 1:
            feed["task"] = np.zeros(len(some), np.int64)
        parts.append(judge.run(feed)["logits"])
    return np.concatenate(parts).astype(np.float64)


def decibel(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio."""
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((wanted - found) ** 2)))


if __name__ == "__main__":
    main()
