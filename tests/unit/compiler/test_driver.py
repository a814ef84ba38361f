"""The whole way from a file, and what the program remembers of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.runtime import InferenceSession

ROOT = Path(__file__).parents[3]


def test_the_float_backend_finds_the_model_of_a_program(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes((ROOT / "tests" / "data" / "timm_ts17.onnx").read_bytes())
    exact = InferenceSession(model, "float")
    arg = exact.get_inputs()[0]
    shape = [int(size) for size in arg.shape[1:]]
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    seen = []
    program = compile_model(
        model, preset("ulx3s"), images, progress=lambda *step: seen.append(step)
    )
    assert program.metadata["source"] == {
        "name": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    found = InferenceSession(program, "float", onnx=model).run(None, {arg.name: images})
    for got, expected in zip(found, exact.run(None, {arg.name: images}), strict=True):
        assert (got == expected).all()
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
