"""A loop over the frames of a film, and how many a second come out.

Frames are those of an animated GIF, PNG or WebP (Pillow); a camera's loop is the same with another
source.  On a board two things happen at the same time: the host decodes and scales, the core
computes.  Here golden answers in place of a board, and the core's time is the estimate.

    python -m examples.video [--film FILE.gif]      # without a film it makes one, of digits
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

from models.datasets import digits
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.estimate import estimate
from vitrify.program import Program, preprocess
from vitrify.runtime import InferenceSession

ROOT = Path(__file__).resolve().parent.parent
FILM = ROOT / "build" / "examples" / "digits.gif"
PREPROCESS = preprocess.parse("mean=0.305,std=0.376")
FRAMES = 24


def make_film() -> None:
    """Digits of the test set, one a frame."""
    FILM.parent.mkdir(parents=True, exist_ok=True)
    shown = digits("test").image[:FRAMES, :, :, 0]
    first, *others = (Image.fromarray(one).resize((160, 160)) for one in shown)
    first.save(FILM, save_all=True, append_images=others, duration=100)


def frames(film: Path, program: Program) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
    """Inputs of the program, and the host's seconds for each: to decode, scale and normalise."""
    with Image.open(film) as opened:
        began = time.perf_counter()
        for frame in ImageSequence.Iterator(opened):
            image = PREPROCESS.apply([frame.convert("L")], program.input.shape)
            yield image, time.perf_counter() - began
            began = time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> None:
    """Name the digit on every frame."""
    parser = argparse.ArgumentParser(prog="python -m examples.video")
    parser.add_argument("--film", type=Path, help="an animated GIF, PNG or WebP of digits")
    film = parser.parse_args(arguments).film
    if film is None:
        make_film()
        film = FILM
    pixels = np.ascontiguousarray(digits("train").image[:64].transpose(0, 3, 1, 2))
    program = compile_model(ROOT / "models" / "digits_vit" / "model.onnx", preset("ulx3s"),
                            PREPROCESS.normalise(pixels))
    core = estimate(program)
    answers, spent = [], []
    with InferenceSession(program) as session:
        for image, seconds in frames(film, program):
            logits, = session.run(None, {program.input.name: image})
            answers.append(int(logits[0].argmax()))
            spent.append(seconds)
    host = 1e3 * float(np.mean(spent))
    print(f"{len(answers)} frames: {''.join(map(str, answers))}")
    if film == FILM:
        print(f"truth:     {''.join(map(str, digits('test').label[:FRAMES]))}")
    print(f"host: {host:.2f} ms a frame here (decode, scale, normalise)\n"
          f"core: {core.milliseconds:.2f} ms a frame on {program.arch.name} at "
          f"{program.arch.clock_mhz:g} MHz, by the estimator\n"
          f"one after the other {1e3 / (host + core.milliseconds):,.0f} frames a second, both at "
          f"once {1e3 / max(host, core.milliseconds):,.0f}")


if __name__ == "__main__":
    main()
