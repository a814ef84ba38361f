"""A small model compiled for ``nano`` and run on golden, against ONNX Runtime on the same file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.support.ratio import decibel
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.frontend import load
from vitrify.ir import Evaluator, shape_of
from vitrify.program import Application, Program
from vitrify.runtime import InferenceSession

SEED = 3
#: Batches to compare.
BATCHES = 8


@dataclass(frozen=True)
class Compiled:
    """Outputs by name, of golden and of ONNX Runtime."""

    program: Program | Application
    found: dict[str, np.ndarray]
    wanted: dict[str, np.ndarray]

    def snr(self, name: str | None = None) -> float:
        """Signal-to-noise ratio of an output (the first) in dB."""
        name = name or next(iter(self.wanted))
        return decibel(self.wanted[name], self.found[name])


def pictures(value: ir.Value, count: int, *, scale: float = 1.0) -> np.ndarray:
    """Random inputs of the type and shape of ``value``."""
    rng, shape = np.random.default_rng(SEED), (count, *map(int, shape_of(value)[1:]))
    if value.dtype == ir.DataType.UINT8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def compiled(path: Path, *, arch: str = "nano", scale: float = 1.0, images: int = 32) -> Compiled:
    """Compile ``path`` with random calibration images and run some of them."""
    model = load(path)
    image = model.graph.inputs[0]
    batch = next(iter(size for size in shape_of(image)[:1] if isinstance(size, int)), 1)
    calibration = pictures(image, max(images, BATCHES * batch), scale=scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no photograph
        program = compile_application(path, preset(arch), calibration)
    feed = calibration[: BATCHES * batch]
    names = [value.name or "" for value in model.graph.outputs]
    with InferenceSession(program) as session:
        found = session.run(names, {image.name or "": feed})
    judge = Evaluator(model, names)
    runs = [
        judge.run({image.name or "": feed[at : at + batch]}) for at in range(0, len(feed), batch)
    ]
    wanted = {name: np.concatenate([run[name] for run in runs]) for name in names}
    return Compiled(program, dict(zip(names, found, strict=True)), wanted)
