"""Calibration images that look wrong are said to, with figures; others are not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.unit.quant import graphs
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler.quantise import quantise
from vitrify.ir import evaluate
from vitrify.program.preprocess import parse
from vitrify.quant.doubts import doubts
from vitrify.quant.evaluate import Evaluator

SPEC = "mean=0.5,std=0.25"


def pictures(count: int = 32) -> np.ndarray:
    """Pixels of smooth pictures."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    return coarse.astype(np.float32)


def said(images: np.ndarray, spec: str | None = SPEC) -> str:
    return "; ".join(doubts(images, None if spec is None else parse(spec), spec))


def test_good_pictures_are_not_doubted() -> None:
    images = parse(SPEC).normalise(pictures().astype(np.uint8))
    assert said(images) == ""
    assert said(images, None) == ""


@pytest.mark.parametrize(("images", "spec", "words"), [
    (pictures(), SPEC, r"\d+ % of the calibration pixels lie outside of 0 … 255 under .*'mean=0.5"),
    (pictures(), None, "values 0 … 255, like pixels that were not normalised"),
    (0.2 * pictures() / 255, SPEC, "pixels cover 128 … 140 of 0 … 255 under"),
    (np.full((40, 3, 8, 8), 0.5, np.float32), None, "40 of 40 calibration images are of one"),
    (np.repeat(pictures(1), 40, axis=0) / 255, None, "all 40 calibration images are the same"),
    (np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32), None,
     r"nothing in common \(correlation"),
    (pictures(8) / 255, None, "8 calibration images: results lose about 1 dB"),
])
def test_doubts(images: np.ndarray, spec: str | None, words: str) -> None:
    assert re.search(words, said(images, spec)), said(images, spec)


def test_the_command_says_so_and_compiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "calib.npy", pictures(4) / 255)
    model = Path(__file__).parents[2] / "data" / "timm_ts17.onnx"
    assert main(["compile", str(model), "--arch", "ulx3s", "--calib", str(tmp_path / "calib.npy"),
                 "-o", str(tmp_path / "out.vfy")]) == 0
    assert "vitrify: warning: 4 calibration images: " in capsys.readouterr().err


def test_few_images_cost_little() -> None:
    net = graphs.Net(5)
    output = graphs.vit(net)
    model, test = net.model(output), net.images(64)
    name = output.name or ""
    real = evaluate(model, {"image": test}, [name])[name]

    def ratio(count: int) -> float:
        nano = preset("nano")
        graph = quantise(model, net.images(count), arch=nano, preprocess=parse("mean=0.5,std=0.5"))
        noise = real - Evaluator(graph, nano).outputs(test)[name].reshape(real.shape)
        return 10 * np.log10(np.mean(real**2) / np.mean(noise**2))

    many = ratio(96)
    found = {count: many - ratio(count) for count in (2, 4, 8, 16)}
    print(found)
    assert found[8] < 3
    assert found[2] < 8
