"""Small models that the core runs in part: compiled, and judged by ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from tests.support.ratio import decibel
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.program import Application, CorePart
from vitrify.runtime import InferenceSession, open_model

IMAGES = np.random.default_rng(8).normal(size=(8, 3, 16, 16)).astype(np.float32)
NANO = preset("nano")
#: Least signal-to-noise ratio of a real output, dB; eight images are few to calibrate with.
ENOUGH = 28.0


def compiled(
    model: onnx.ModelProto, tmp_path: Path, arch: ArchConfig = NANO, **options
) -> tuple[Application, Path]:
    """The application, as it comes back from its file, and the model's."""
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no photograph
        application = compile_application(path, arch, IMAGES, **options)
    assert isinstance(application, Application)
    application.save(tmp_path / "model.vfy")
    again = open_model(tmp_path / "model.vfy")
    assert isinstance(again, Application)
    return again, path


def places(application: Application) -> str:
    return "".join("c" if isinstance(part, CorePart) else "h" for part in application.parts)


def check(application: Application, path: Path, *, enough: float = ENOUGH) -> None:
    """Every output against ONNX Runtime, image by image."""
    judge = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = [judge.run(None, {"image": image[None]}) for image in IMAGES[:3]]
    with InferenceSession(application) as session:
        found = session.run(None, {"image": IMAGES[:3]})
        assert session.statistics is not None
        assert session.statistics.images == 3
    for mine, *theirs in zip(found, *wanted, strict=True):
        exact = np.concatenate(theirs)
        assert mine.dtype == exact.dtype
        assert mine.shape == exact.shape
        if exact.dtype.kind == "f" and exact.size:
            assert decibel(exact, mine) > enough
        else:
            assert np.array_equal(mine, exact)


def save(graph: onnx.GraphProto, path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
