"""What commands do with a model file: find its input, read pictures for it, compile it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.program import Program
from vitrify.runtime.images import read_floats

from .terminal import Bar, progress_bar

Shape = tuple[int, int, int]

#: Images of noise where nobody cares what the model says.
_NOISE_IMAGES = 2


def image_input(model: Path) -> tuple[str, Shape]:
    """Name and shape ``(C, H, W)`` of a model's input."""
    from vitrify.frontend import image_input as of_model
    from vitrify.frontend import load
    from vitrify.ir import shape_of

    image = of_model(load(model))
    c, h, w = (int(size) for size in shape_of(image)[1:])
    return image.name or "", (c, h, w)


def read_calibration(
    model: Path, images: Path | None, preprocess: str | None
) -> npt.NDArray[np.float32]:
    """Calibration images of a model; noise without ``images``."""
    name, shape = image_input(model)
    if images is None:
        noise = np.random.default_rng(0).normal(size=(_NOISE_IMAGES, *shape))
        return noise.astype(np.float32)
    return read_floats([images], name, shape, preprocess)


def stages(bar: Bar) -> Callable[[str, float], None]:
    """A compiler's progress as a bar."""

    def report(phrase: str, fraction: float) -> None:
        bar.say(phrase)
        bar(round(100 * fraction), 100)

    return report


def compile_shown(
    model: Path, arch: ArchConfig, calibration: npt.NDArray[np.float32],
    preprocess: str | None = None, keep: Path | None = None, batch: int = 1, *,
    verify: bool = True,
) -> Program:
    """Compile behind a progress bar."""
    from vitrify.compiler import compile_model

    with progress_bar(f"compiling {model.name}") as bar:
        return compile_model(
            model, arch, calibration, preprocess=preprocess, keep=keep, progress=stages(bar),
            batch=batch, verify=verify,
        )
