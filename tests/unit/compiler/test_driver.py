"""The whole way from a file, and what the program remembers of it."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.parts import IMAGES
from tests.support.ratio import decibel
from tests.support.tails import with_tail
from vitrify import frontend
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model, driver, quantise
from vitrify.quant import calibrate
from vitrify.quant.plan import Plan
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


@pytest.mark.filterwarnings("ignore::vitrify.quant.doubts.CalibrationWarning")
def test_nothing_is_held_twice_while_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    read, plans = [], []

    def load(*arguments: Any) -> Any:
        read.append(arguments)
        return frontend.load(*arguments)

    def collect(*arguments: Any, **settings: Any) -> Any:
        plans.append([one for one in gc.get_objects() if isinstance(one, Plan)])
        return calibrate.collect(*arguments, **settings)

    monkeypatch.setattr(driver, "load", load)
    monkeypatch.setattr(quantise, "collect", collect)
    gc.collect()
    images = IMAGES[:, :1, :8, :8]
    compile_model(ROOT / "models" / "digits_vit" / "model.onnx", preset("nano"), images)
    assert len(read) == 1
    assert plans == [[]]


@pytest.mark.filterwarnings("ignore::vitrify.quant.doubts.CalibrationWarning")
def test_a_number_of_an_image_has_no_axis(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tail = [("Gather", ["logits", "two"], ["y"], {"axis": 1})]
    onnx.save(with_tail(tail, [("y", 1)], [("two", np.array(2))]), path)
    program = compile_model(path, preset("nano"), IMAGES)
    program.save(tmp_path / "model.vfy")
    feed = {"image": IMAGES}
    (found,) = InferenceSession(tmp_path / "model.vfy").run(None, feed)
    (wanted,) = InferenceSession(path, "float").run(None, feed)
    assert found.shape == wanted.shape == (len(IMAGES),)
    assert decibel(wanted, found) > 20
