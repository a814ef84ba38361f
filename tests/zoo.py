"""Which models of a folder become canonical graphs, how exactly and at what cost.

``python -m tests.zoo FOLDER [NAME ...]`` prints a row for every ``.onnx`` file (whose name holds
one of the names): the largest deviation from the original in ONNX Runtime on random images,
relative to the largest value of the output, seconds of the CPU, memory, the operations.
"""

from __future__ import annotations

import argparse
import collections
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SEED = 5
IMAGES = 2
TIMEOUT_SECONDS = 600


def deviation(path: Path) -> str:
    """The row of one model, computed in this process."""
    import onnxruntime as ort

    from vitrify.arch.errors import VitrifyError
    from vitrify.frontend import canonicalise, image_input, load
    from vitrify.ir import Evaluator

    started = time.process_time()
    try:
        model = load(path)
        canonical = canonicalise(model)
    except VitrifyError as error:
        return f"refused | {error}"
    seconds = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    image = image_input(model)
    assert image.shape is not None, "load looked"
    batch, *size = image.shape
    images = batch if isinstance(batch, int) else IMAGES
    pictures = np.random.default_rng(SEED).standard_normal((images, *(int(side) for side in size)), np.float32)
    feeds = {image.name or "": pictures}
    names = [value.name or "" for value in canonical.graph.outputs]
    found = Evaluator(canonical, names).run(feeds)
    wanted = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(names, feeds)
    worst = 0.0
    for name, exact in zip(names, wanted, strict=True):
        if np.shape(exact) != found[name].shape:
            return f"wrong | {name}: shape {found[name].shape} instead of {np.shape(exact)}"
        error = np.abs(found[name] - exact).max(initial=0.0)
        worst = max(worst, float(error / np.abs(exact).max(initial=1e-30)))
    kinds = collections.Counter(node.op_type for node in canonical.graph)
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    state = "works" if worst < 1e-4 else "wrong"
    return f"{state} | {worst:.1e} | {seconds:.1f} s | {memory:.2f} GiB | {listed}"


def main() -> None:
    """Print the table, each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one", action="store_true", help="FOLDER is one file; this process")
    options = parser.parse_args()
    if options.one:
        print(deviation(options.folder))
        return
    states: collections.Counter[str] = collections.Counter()
    for path in sorted(options.folder.glob("*.onnx")):
        if options.names and not any(name in path.stem for name in options.names):
            continue
        try:
            result = subprocess.run(
                [sys.executable, "-m", "tests.zoo", str(path), "--one"],
                capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
            row = result.stdout.strip() or "fails | " + result.stderr.strip().rpartition("\n")[2]
        except subprocess.TimeoutExpired:
            row = f"fails | more than {TIMEOUT_SECONDS} s"
        states[row.partition(" ")[0]] += 1
        print(f"{path.stem} | {row}", flush=True)
    print(", ".join(f"{count} {state}" for state, count in states.items()))


if __name__ == "__main__":
    main()
