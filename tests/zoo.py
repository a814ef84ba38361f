"""Which models of a folder become canonical graphs, how exactly and at what cost.

``python -m tests.zoo FOLDER [NAME ...]`` prints a row for every ``.onnx`` file (whose name holds
one of the names): the largest deviation from the original in ONNX Runtime on random images,
relative to the largest value of the output, seconds of the CPU, memory, the operations.  With
``--compile ARCH`` the models go all the way to programs: the least signal-to-noise ratio of an
output on golden against the original in dB, that of what differs between images alone,
instructions, the roofline in cycles, seconds, memory.  ``--parts ARCH`` leaves to the host what the
core cannot run or has no room for: parts in their order (c: core, h: host), share of the
multiplications on the core, the same ratios, roofline of the programs, seconds, memory.
Parameters that are all zeros or ones, as before training, are changed first.
"""

from __future__ import annotations

import argparse
import collections
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.support.ratio import decibel

SEED = 5
#: Standard deviation of what constant parameters are changed by.
SPREAD = 0.1
IMAGES = 2
#: Images that a model is calibrated with, and those of them that it is judged by.
CALIBRATION, JUDGED = 16, 4
#: Patches along a side of the images that programs are judged by.
PATCHES = 7
#: Decibels from which an output counts as right.
ENOUGH = 20.0
TIMEOUT_SECONDS = 300


def shake(model: ir.Model) -> None:
    """Make parameters that are all one number different: untrained models hide much behind zeros.

    A head of zeros, say, gives the same output whatever comes before it, and a table of zeros is
    no position bias.
    """
    rng = np.random.default_rng(SEED)
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is None or array.dtype != np.float32 or array.size < 2 or np.ptp(array):
            continue
        noise = SPREAD * rng.standard_normal(array.shape, np.float32)
        value.const_value = ir.tensor(array + noise, name=value.name)


def deviation(path: Path) -> str:
    """The row of one model, computed in this process."""
    from vitrify.arch.errors import VitrifyError
    from vitrify.frontend import canonicalise, image_input, load
    from vitrify.ir import evaluate, shape_of

    started = time.process_time()
    try:
        model = load(path)
        shake(model)
        canonical = canonicalise(model)
    except VitrifyError as error:
        return f"refused | {error}"
    seconds = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    image = image_input(model)
    batch, *size = shape_of(image)
    images = batch if isinstance(batch, int) else IMAGES
    shape = [images, *(int(side) for side in size)]
    feeds = {image.name or "": np.random.default_rng(SEED).standard_normal(shape, np.float32)}
    names = [value.name or "" for value in canonical.graph.outputs]
    found, wanted = evaluate(canonical, feeds, names), evaluate(model, feeds, names)
    worst = 0.0
    for name, exact in wanted.items():
        if np.shape(exact) != found[name].shape:
            return f"wrong | {name}: shape {found[name].shape} instead of {np.shape(exact)}"
        error = np.abs(found[name] - exact).max(initial=0.0)
        worst = max(worst, float(error / np.abs(exact).max(initial=1e-30)))
    kinds = collections.Counter(node.op_type for node in canonical.graph)
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    state = "works" if worst < 1e-4 else "wrong"
    return f"{state} | {worst:.1e} | {seconds:.1f} s | {memory:.2f} GiB | {listed}"


def compiled(path: Path, name: str, *, parts: bool) -> str:
    """The row of one model, compiled for an architecture in this process.

    The program runs on golden, and its outputs are compared with the original's.
    """
    from vitrify.arch.errors import VitrifyError
    from vitrify.arch.presets import preset
    from vitrify.compiler import compile_application, compile_graph
    from vitrify.compiler.quantise import quantise
    from vitrify.frontend import canonicalise, image_input, load
    from vitrify.ir import evaluate, shape_of
    from vitrify.program import CorePart, Program
    from vitrify.runtime import InferenceSession

    started, arch = time.process_time(), preset(name)
    try:
        model = load(path)
        shake(model)
        image = image_input(model)
        shape = [CALIBRATION, *(int(side) for side in shape_of(image)[1:])]
        images = pictures(shape)
        if parts:
            with tempfile.TemporaryDirectory() as folder:
                shaken = Path(folder) / path.name
                ir.save(model, shaken)
                program = compile_application(
                    shaken, arch, images, verify=False, warn=lambda _: None
                )
        else:
            program = compile_graph(quantise(canonicalise(model), images, arch=arch), arch)
    except VitrifyError as error:
        return f"refused | {error}"
    seconds = time.process_time() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    feeds = {image.name or "": images[:JUDGED]}
    session = InferenceSession(program, backend="golden")
    names = [output.name for output in session.get_outputs()]
    wanted = evaluate(model, feeds, names)
    pairs = list(zip(wanted.values(), session.run(names, feeds), strict=True))
    ratio = min(decibel(exact, found) for exact, found in pairs)
    # Untrained networks may say much the same of every image; that part is easy to get right.
    own = min(decibel(exact, found, exact.mean(axis=0)) for exact, found in pairs)
    state = "works" if ratio >= ENOUGH else "poor"
    programs = [program] if isinstance(program, Program) else program.programs
    what = f"{sum(each.instruction_count for each in programs):,} instructions"
    if not isinstance(program, Program):
        order = "".join("c" if isinstance(part, CorePart) else "h" for part in program.parts)
        what = f"{order} | {100 * program.core_share:.1f} %"
    return (
        f"{state} | {ratio:.1f} dB | {own:.1f} dB | {what} | "
        f"{sum(each.roofline_cycles for each in programs):,} cycles | {seconds:.0f} s | "
        f"{memory:.2f} GiB"
    )


def pictures(shape: list[int]) -> np.ndarray:
    """Images ``[N, C, H, W]`` of coarse patches under noise, each of its own contrast."""
    rng = np.random.default_rng(SEED)
    count, channels, height, width = shape
    coarse = rng.standard_normal((count, channels, PATCHES, PATCHES), np.float32)
    rows, columns = (np.arange(size) * PATCHES // size for size in (height, width))
    contrast = rng.uniform(0.3, 1.5, (count, 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(shape, np.float32)
    return contrast * (coarse[:, :, rows][..., columns] + 0.3 * noise)


def main() -> None:
    """Print the table, each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one", action="store_true", help="FOLDER is one file; this process")
    parser.add_argument("--compile", metavar="ARCH", help="to programs for this preset")
    parser.add_argument("--parts", metavar="ARCH", help="to applications, with parts on the host")
    parser.add_argument("--timeout", type=int, default=TIMEOUT_SECONDS, help="seconds for a model")
    options = parser.parse_args()
    kind = "parts" if options.parts else "compile" if options.compile else ""
    arch = options.parts or options.compile
    if options.one:
        path = options.folder
        print(compiled(path, arch, parts=kind == "parts") if kind else deviation(path))
        return
    more = [f"--{kind}", arch] if kind else []
    states: collections.Counter[str] = collections.Counter()
    for path in sorted(options.folder.glob("*.onnx")):
        if options.names and not any(name in path.stem for name in options.names):
            continue
        try:
            result = subprocess.run(
                [sys.executable, "-m", "tests.zoo", str(path), "--one", *more],
                capture_output=True, text=True, timeout=options.timeout, check=False,
            )  # fmt: skip
            row = result.stdout.strip() or "fails | " + result.stderr.strip().rpartition("\n")[2]
        except subprocess.TimeoutExpired:
            row = f"fails | more than {options.timeout} s"
        states[row.partition(" ")[0]] += 1
        print(f"{path.stem} | {row}", flush=True)
    print(", ".join(f"{count} {state}" for state, count in states.items()))


if __name__ == "__main__":
    main()
