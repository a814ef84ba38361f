"""Real pictures through a vision transformer: ONNX Runtime, golden machine and simulated core.

Run by ``make demo`` (``make demo QUICK=1``: the digits alone); needs nothing but the repository and
its installed packages.  For each model: compile the ONNX file for a core, build the core's
simulator from its Verilog, classify pictures that ship inside scikit-learn and scikit-image, and
compare every tensor of every layer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from demo.picture import draw
from models.calibration import PHOTOGRAPHS, digits_calibration, photo_crops, photographs
from models.datasets import TURNS, digits, half_turned, quarter_turns
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.program import Program, preprocess
from vitrify.runtime import InferenceSession
from vitrify.runtime.statistics import Statistics

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "demo"
OUT = Console()
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: The right class of those photographs that show one of the models' classes.
KNOWN = {"chelsea": "cat"}

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """What is classified: uint8 ``[N, H, W, C]``; of each a name, a task, and the right answer.

    The right answer is empty where it is none of the model's classes.
    """

    images: Images
    names: list[str]
    tasks: list[int]
    right: list[str]


@dataclass(frozen=True)
class Job:
    """One model on one core; ``classes`` of each task; ``calibration`` like pictures' images."""

    title: str
    model: str
    arch: str
    preprocess: str
    classes: tuple[tuple[str, ...], ...]
    calibration: Callable[[], Images]
    pictures: Callable[[], Shown]


def _digits() -> Shown:
    test = digits("test")
    labels = [str(label) for label in test.label[:8]]
    return Shown(test.image[:8], [f"handwritten {label}" for label in labels], [0] * 8, labels)


def _photographs() -> Shown:
    spec = preprocess.parse("size=32")
    pixels = np.stack([spec.picture(photo, (3, 32, 32)) for photo in photographs()])
    images = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    right = [KNOWN.get(name, "") for name in PHOTOGRAPHS]
    return Shown(images, list(PHOTOGRAPHS), [0] * len(images), right)


def _two_questions() -> Shown:
    """What is on it, and, of the same photograph turned, which way up it is."""
    shown = _photographs()
    images, names = shown.images[::2], shown.names[::2]
    turned = quarter_turns(images)
    return Shown(
        np.concatenate([images, turned.image]),
        names + [f"{name}, {TURNS[way]}" for name, way in zip(names, turned.label, strict=True)],
        [0] * len(images) + [1] * len(images),
        shown.right[::2] + [TURNS[way] for way in turned.label],
    )


def _crops() -> Images:
    return photo_crops(256, 32)


def _turned_crops() -> Images:
    return half_turned(_crops())


_CIFAR = "mean=0.4914:0.4822:0.4465,std=0.247:0.2435:0.2616"
JOBS = (
    Job("handwritten digits", "digits_vit", "nano", "mean=0.305,std=0.376",
        (tuple("0123456789"),), digits_calibration, _digits),
    Job("photographs", "cifar10_vit", "reference", _CIFAR, (CIFAR10,), _crops, _photographs),
    Job("eight experts, two tasks: what is it, which way up", "cifar10_moe_vit", "reference",
        _CIFAR, (CIFAR10, TURNS), _turned_crops, _two_questions),
)


def _compile(job: Job) -> Program:
    arch = preset(job.arch)
    images = job.calibration()
    floats = preprocess.parse(job.preprocess).normalise(
        np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    )
    with OUT.status(f"compiling {job.model} for {arch.name}") as status:
        program = compile_model(
            ROOT / "models" / job.model / "model.onnx", arch, floats, preprocess=job.preprocess,
            progress=lambda phrase, share: status.update(f"{job.model}: {phrase} {share:.0%}"),
        )
    WORK.mkdir(parents=True, exist_ok=True)
    program.save(WORK / f"{job.model}.vfy")
    return program


def run(job: Job) -> Statistics:
    """Compile, simulate, compare and show one job."""
    began = time.monotonic()
    program = _compile(job)
    shown = job.pictures()
    floats = preprocess.parse(job.preprocess).normalise(
        np.ascontiguousarray(shown.images.transpose(0, 3, 1, 2))
    )
    tasks = {task.name: np.array(shown.tasks) for task in program.tasks}
    feed = {program.input.name: floats, **tasks}
    original = InferenceSession(ROOT / "models" / job.model / "model.onnx", "float")
    logits = {"ONNX Runtime": original.run(None, feed)[0]}
    logits["golden"] = InferenceSession(program, "golden").run(None, feed)[0]
    with OUT.status(f"building the simulator of {job.arch} (cached from then on)") as status:
        def show(done: int, total: int) -> None:
            status.update(f"{job.arch}: layer {done} of {total}, every tensor compared")

        # `check` stops at the first tensor that differs from the golden machine's.
        session = InferenceSession(program, "rtl", check=True, progress=show)
        with session:
            logits["RTL"] = session.run(None, feed)[0]
            statistics = session.statistics
    assert statistics is not None
    assert (logits["RTL"] == logits["golden"]).all()

    labels = {
        name: [answer(row, job.classes[task])[0]
               for row, task in zip(value, shown.tasks, strict=True)]
        for name, value in logits.items()
    }
    _table(job, shown, labels, logits["RTL"])
    _report(statistics, program, len(shown.images), time.monotonic() - began)
    picture = WORK / f"{job.model}.png"
    draw(picture, job.title, shown.images, shown.names, labels, statistics)
    OUT.print(f"picture: {picture.relative_to(ROOT)}\n")
    return statistics


def answer(logits: npt.NDArray[np.floating], classes: tuple[str, ...]) -> tuple[str, float]:
    """The class with the largest logit, and its share of the softmax over the ``classes``."""
    own = logits[: len(classes)].astype(np.float64)
    shares = np.exp(own - own.max())
    return classes[own.argmax()], float(shares.max() / shares.sum())


def _table(
    job: Job, shown: Shown, labels: dict[str, list[str]], logits: npt.NDArray[np.floating]
) -> None:
    """What each backend says, how sure the core is, and what is right where that is known."""
    table = Table("picture", "right", "RTL", "golden", "ONNX Runtime",
                  title=f"{job.title}: {job.model}")
    good = known = 0
    for i, (name, right) in enumerate(zip(shown.names, shown.right, strict=True)):
        said, sure = answer(logits[i], job.classes[shown.tasks[i]])
        known, good = known + bool(right), good + (said == right)
        colour = "" if not right else "[green]" if said == right else "[red]"
        table.add_row(name, right or "–", f"{colour}{said} {sure:.0%}",
                      labels["golden"][i], labels["ONNX Runtime"][i])
    OUT.print(table)
    OUT.print(f"{good} of {known} right (–: the model has no class for it)")


def _report(statistics: Statistics, program: Program, images: int, seconds: float) -> None:
    cycles = (statistics.cycles or 0) / images
    arch = program.arch
    OUT.print(
        f"{len(program.layers)} layers an image, every tensor equal in RTL and golden: "
        f"{images} of {images} pictures\n"
        f"{arch.name} ({arch.macs} MACs): {cycles:,.0f} cycles an image "
        f"({cycles / arch.clock_mhz / 1e3:.3f} ms at {arch.clock_mhz:g} MHz), "
        f"utilisation {statistics.utilisation or 0:.1%}, DRAM read "
        f"{statistics.dram_read_bytes // images:,} and written "
        f"{statistics.dram_write_bytes // images:,} bytes an image; {seconds:.0f} s in all"
    )


def main() -> None:
    """Run every job, or the first."""
    parser = argparse.ArgumentParser(prog="demo", description="Real pictures through a ViT.")
    parser.add_argument("--quick", action="store_true", help="the digits alone: about a minute")
    for job in JOBS[:1] if parser.parse_args().quick else JOBS:
        run(job)


if __name__ == "__main__":
    main()
