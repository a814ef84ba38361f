"""Real pictures through a vision transformer: ONNX Runtime, golden machine and simulated core.

Run by ``make demo`` (``make demo QUICK=1``: the digits alone); needs nothing but the repository and
its installed packages.  For each model: compile the ONNX file for a core, build the core's
simulator from its Verilog, classify pictures that ship inside scikit-learn and scikit-image, and
compare every tensor of every layer.  ``make demo DATA=DIR``, with CIFAR-10 in that folder, shows a
test picture of each class instead of photographs.

``python -m demo.demo --board NAME -o FOLDER``: the digits alone, on a simulated board, through its
serial line, its SDRAM and the driver that a physical one has.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from demo.picture import draw, draw_logits
from models.calibration import PHOTOGRAPHS, digits_calibration, photo_crops, photographs
from models.datasets import TURNS, cifar10, digits, half_turned, quarter_turns
from vitrify.arch.boards import BOARDS, STANDALONE_BOARDS, standalone
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.cosim.board import SimulatedBoard
from vitrify.cosim.pty import serve
from vitrify.program import Program, preprocess
from vitrify.runtime import InferenceSession
from vitrify.runtime.statistics import Statistics

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "demo"
OUT = Console()
#: How many digits are shown.
_DIGITS = 10
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: The right class of those photographs, wider than high, that show one of the models' classes.
KNOWN = {"chelsea": "cat"}

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """What is classified: uint8 ``[N, H, W, C]``; of each a name, a task, and the right answer."""

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
    labels = [str(label) for label in test.label[:_DIGITS]]
    return Shown(test.image[:_DIGITS], [f"handwritten {label}" for label in labels],
                 [0] * _DIGITS, labels)


def _pixels(photos: list[Image.Image]) -> Images:
    """The middle square of each, 32 × 32."""
    spec = preprocess.parse("size=32")
    pixels = np.stack([spec.picture(photo, (3, 32, 32)) for photo in photos])
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _photographs() -> Shown:
    """Squares of the photographs that show a class of the models."""
    photos, names, right = [], [], []
    for name, photo in zip(PHOTOGRAPHS, photographs(), strict=True):
        if name not in KNOWN:
            continue
        width, side = photo.size
        squares = {
            place: photo.crop((left, 0, left + side, side))
            for place, left in (("left", 0), ("middle", (width - side) // 2),
                                ("right", width - side))
        }
        squares["mirrored"] = ImageOps.mirror(squares["middle"])
        photos += squares.values()
        names += [f"{name}, {place}" for place in squares]
        right += [KNOWN[name]] * len(squares)
    return Shown(_pixels(photos), names, [0] * len(names), right)


def _test_pictures(folder: Path) -> Shown:
    """The first test picture of each class of CIFAR-10."""
    test = cifar10(folder, "test")
    first = [int((test.label == label).argmax()) for label in range(len(CIFAR10))]
    return Shown(test.image[first], [f"test {i}" for i in first], [0] * len(first), list(CIFAR10))


def _two_questions() -> Shown:
    """What is on it, and, of photographs that were turned, which way up they are."""
    shown = _photographs()
    turned = quarter_turns(_pixels(photographs()[::2]))
    ways = [TURNS[way] for way in turned.label]
    return Shown(
        np.concatenate([shown.images, turned.image]),
        shown.names + [f"{name}, {way}" for name, way in zip(PHOTOGRAPHS[::2], ways, strict=True)],
        shown.tasks + [1] * len(ways),
        shown.right + ways,
    )


def _crops() -> Images:
    return photo_crops(256, 32)


def _turned_crops() -> Images:
    return half_turned(_crops())


_CIFAR = "mean=0.4914:0.4822:0.4465,std=0.247:0.2435:0.2616"
JOBS = (
    Job("handwritten digits", "digits_vit", "nano", "mean=0.305,std=0.376",
        (tuple("0123456789"),), digits_calibration, _digits),
    Job("convolutions, then attention", "cifar10_hybrid_vit", "reference", _CIFAR, (CIFAR10,),
        _crops, _photographs),
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


def run(job: Job, board: str | None = None, folder: Path = WORK) -> Statistics:
    """Compile, simulate, compare and show one job; its picture goes to ``folder``.

    With the name of a board, on that board's core and system; every layer's tensors are compared
    without one.
    """
    began = time.monotonic()
    job = job if board is None else replace(job, arch=board)
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
    with _session(program, board) as session:
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
    _report(statistics, program, board, len(shown.images), time.monotonic() - began)
    if board is None:
        picture = folder / f"{job.model}.png"
        draw(picture, job.title, shown.images, shown.names, labels, statistics)
    else:
        picture = folder / f"board-{board}.png"
        title = (f"{job.title} on the simulated board {board} (core, SDRAM, serial line): "
                 f"{(statistics.cycles or 0) // len(shown.images):,} cycles an image, logits equal "
                 f"to golden's")
        draw_logits(picture, title, shown.images, shown.names, labels, job.classes[0],
                    logits["RTL"])
    OUT.print(f"picture: {picture}\n")
    return statistics


@contextmanager
def _session(program: Program, board: str | None) -> Iterator[InferenceSession]:
    """The simulated core, or the simulated board; the simulator is cached when it is built."""
    name = program.arch.name
    with OUT.status(f"building the simulator of {name} (cached from then on)") as status:
        def show(done: int, total: int) -> None:
            status.update(f"{name}: layer {done} of {total}")

        if board is None:
            # `check` stops at the first tensor that differs from the golden machine's.
            with InferenceSession(program, "rtl", check=True, progress=show) as session:
                yield session
            return
        simulated = SimulatedBoard(
            program.arch, standalone(BOARDS[board]).sdram, say=status.update
        )
        try:
            with (
                serve(simulated) as port,
                InferenceSession(program, f"board:{board}?port={port}", progress=show) as session,
            ):
                yield session
        finally:
            simulated.close()


def answer(logits: npt.NDArray[np.floating], classes: tuple[str, ...]) -> tuple[str, float]:
    """The class with the largest logit, and its share of the softmax over the ``classes``."""
    own = logits[: len(classes)].astype(np.float64)
    shares = np.exp(own - own.max())
    return classes[own.argmax()], float(shares.max() / shares.sum())


def _table(
    job: Job, shown: Shown, labels: dict[str, list[str]], logits: npt.NDArray[np.floating]
) -> None:
    """What each backend says, how sure the core is, and what is right."""
    table = Table("picture", "right", "RTL", "golden", "ONNX Runtime",
                  title=f"{job.title}: {job.model}")
    good = 0
    for i, (name, right) in enumerate(zip(shown.names, shown.right, strict=True)):
        said, sure = answer(logits[i], job.classes[shown.tasks[i]])
        good += said == right
        table.add_row(name, right, f"{'[green]' if said == right else '[red]'}{said} {sure:.0%}",
                      labels["golden"][i], labels["ONNX Runtime"][i])
    OUT.print(table)
    OUT.print(f"{good} of {len(shown.right)} right")


def _report(
    statistics: Statistics, program: Program, board: str | None, images: int, seconds: float
) -> None:
    cycles = (statistics.cycles or 0) / images
    arch = program.arch
    compared = "every tensor" if board is None else "the logits"
    OUT.print(
        f"{len(program.layers)} layers an image, {compared} equal in RTL and golden: "
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
    parser.add_argument("--data", type=Path, metavar="DIR", help="CIFAR-10 as models/datasets.py "
                        "reads it: a test picture of each class instead of photographs")
    parser.add_argument("--board", choices=STANDALONE_BOARDS, help="the digits alone, on this "
                        "board, simulated")
    parser.add_argument("-o", "--output", type=Path, default=WORK, metavar="FOLDER",
                        help="where the pictures go (build/demo)")
    options = parser.parse_args()
    if options.data and not (options.data / "test.npz").is_file():
        parser.error(f"--data {options.data}: there is no test.npz in it")
    if options.data and options.board:
        parser.error("--board shows digits, and --data is of the other models; give one of both")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {options.output}: {error.strerror}")
    for job in JOBS[:1] if options.quick or options.board else JOBS:
        if options.data and job.classes == (CIFAR10,):
            job = replace(job, pictures=partial(_test_pictures, options.data))
        run(job, options.board, options.output)


if __name__ == "__main__":
    main()
