"""``python -m bench.golden``: golden against ONNX Runtime on the same processor, as ratios.

The same pictures through the golden machine and through ONNX Runtime, float and int8 (static QDQ,
made here by ONNX Runtime's own quantiser), in turn and in one run; the least time of each counts.
With one thread that is CPU time, which other work on the machine hardly changes; with more it is
time by the clock, for which the machine has to be idle.  ``--json`` keeps the figures with their
conditions, as in ``bench/results/golden``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench.cases import CASES, Float32
from bench.quantised_models import S8_CHANNEL, quantise_file
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.golden.numerics import compiled
from vitrify.program import Program
from vitrify.runtime import InferenceSession

THREADS = (1, 2)
BATCHES = (1, 16)
_CALIBRATION = 8


def least(runs: Mapping[str, Callable[[], object]], threads: int, repeats: int) -> dict[str, float]:
    """Least seconds of each of ``runs``, which take turns; each ran once before."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found = dict.fromkeys(runs, np.inf)
    for _ in range(repeats + 1):
        for name, run in runs.items():
            began = clock()
            run()
            found[name] = min(found[name], clock() - began)
    return found


def measure(
    model: Path, program: Program, int8: Path, images: Float32, threads: int, repeats: int
) -> dict[str, float]:
    """Seconds of golden, float and int8 for all of ``images`` at once."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    golden = InferenceSession(program)
    runs: dict[str, Callable[[], object]] = {
        "golden": lambda: golden.run(None, {program.input.name: images})
    }
    for name, path in (("float", model), ("int8", int8)):
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0]
        # An export with a fixed batch takes its pictures one by one.
        size = len(images) if isinstance(feed.shape[0], str) else 1
        parts = [{feed.name: images[at : at + size]} for at in range(0, len(images), size)]
        runs[name] = lambda session=session, parts=parts: [session.run(None, p) for p in parts]
    with threadpool_limits(threads):
        return least(runs, threads, repeats)


def conditions() -> dict[str, str | None]:
    """The processor, and the versions of what computes (``None``: not there, or not used)."""
    cpu = Path("/proc/cpuinfo")
    names = (line.partition(":")[2].strip() for line in cpu.read_text().splitlines()
             if line.startswith("model name")) if cpu.is_file() else iter(())
    found: dict[str, str | None] = {
        "processor": next(names, platform.processor()), "python": platform.python_version(),
    }
    for package in ("numpy", "numba", "onnxruntime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    if compiled() is None:
        found["numba"] = None
    return found


def main() -> None:
    """Measure a model and print the ratios."""
    known = next(c.model for c in reversed(CASES) if c.available)
    parser = argparse.ArgumentParser(prog="python -m bench.golden")
    parser.add_argument("model", nargs="?", type=Path, default=known, metavar="MODEL.onnx")
    parser.add_argument("--arch", default="kv260", metavar="PRESET")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, choices=THREADS, help="both if not given")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    feed = ort.InferenceSession(options.model).get_inputs()[0]
    pictures = np.random.default_rng(0).standard_normal(
        (max(BATCHES), *feed.shape[1:]), np.float32
    )
    table = Table("threads", "pictures", "golden ms", "float ms", "int8 ms", "golden / float",
                  "golden / int8", title=f"{options.model.name}, a picture")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        few = pictures[:_CALIBRATION]
        program = compile_model(options.model, preset(options.arch), few, verify=False,
                                warn=lambda _: None)
        int8 = Path(place) / "int8.onnx"
        quantise_file(options.model, int8, S8_CHANNEL, few)
        for threads in (options.threads,) if options.threads else THREADS:
            for batch in BATCHES:
                found = measure(options.model, program, int8, pictures[:batch], threads,
                                options.repeats)
                row = {f"{name}_ms": round(1e3 * t / batch, 1) for name, t in found.items()}
                for name in ("float", "int8"):
                    row[f"golden_to_{name}"] = round(found["golden"] / found[name], 2)
                rows.append({"threads": threads, "pictures": batch, **row})
                table.add_row(*map(str, rows[-1].values()))
    Console().print(table)
    if options.json:
        result = {"model": options.model.name, "arch": options.arch, "repeats": options.repeats,
                  "conditions": conditions(), "of_a_picture": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
