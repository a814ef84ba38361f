"""``vitrify accuracy`` on a trained model and pictures of digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.calibration import digits_calibration
from models.datasets import digits
from tests.support.command import vitrify

ROOT = Path(__file__).parents[3]
COUNT = 60
SPEC = "mean=0.305,std=0.376"
MODEL = ("--arch", "nano", "--calib", "calib.npy", "--preprocess", SPEC)
DATA = ("--data", "pictures", "--labels", "labels.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model, its program, pictures and labels."""
    folder = tmp_path_factory.mktemp("accuracy")
    test = digits("test")
    (folder / "pictures").mkdir()
    lines = ["file,label,split"]
    for number in range(COUNT):
        name = f"{number}.png"
        Image.fromarray(test.image[number, :, :, 0]).save(folder / "pictures" / name)
        lines.append(f"{name},{test.label[number]},{'a' if number < 20 else 'b'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "digits.onnx").write_bytes((ROOT / "models/digits_vit/model.onnx").read_bytes())
    (folder / "plain.yaml").write_text("base: nano\nname: plain\nnibbles: false\n")
    np.save(folder / "calib.npy", digits_calibration().transpose(0, 3, 1, 2))
    return folder


@pytest.fixture(autouse=True)
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_float(capsys):
    arguments = ("digits.onnx", *DATA, "--backend", "float", "--preprocess", SPEC)
    data = json.loads(vitrify(capsys, "accuracy", *arguments, "--json"))
    assert data["images"] == COUNT
    assert 0.9 < data["top1"] <= data["top5"] <= 1
    assert "agreement" not in data
    assert f"{data['top1']:.2%}" in vitrify(capsys, "accuracy", *arguments)


def test_integers_of_a_model_and_of_its_program(capsys):
    data = json.loads(vitrify(capsys, "accuracy", "digits.onnx", *DATA, *MODEL, "--json"))
    assert data["top1"] == pytest.approx(data["float_top1"], abs=0.05)
    assert data["agreement"] > 0.95
    assert 0 < data["kl"] < 0.1
    assert data["arch"] == "nano"

    vitrify(capsys, "compile", "digits.onnx", *MODEL)
    again = json.loads(vitrify(capsys, "accuracy", "digits.vfy", *DATA, "--json"))
    wide = vitrify(capsys, "accuracy", "digits.vfy", *DATA, "--weights", "4", code=2)
    assert "'digits.vfy' is a program: --weights would belong to a model" in wide
    same = ("images", "top1", "top5", "float_top1", "float_top5", "agreement", "kl")
    assert [again[name] for name in same] == [data[name] for name in same]

    # The original is gone: the integers can still be counted.
    Path("digits.onnx").rename("kept.onnx")
    try:
        assert "golden" in vitrify(capsys, "accuracy", "digits.vfy", *DATA)
        alone = json.loads(vitrify(capsys, "accuracy", "digits.vfy", *DATA, "--json"))
    finally:
        Path("kept.onnx").rename("digits.onnx")
    assert alone["top1"] == data["top1"]
    assert "agreement" not in alone


def test_weights_of_four_bits(capsys):
    narrow = ("digits.onnx", *DATA, *MODEL, "--limit", "20", "--json", "--weights", "4")
    assert json.loads(vitrify(capsys, "accuracy", *narrow))["agreement"] >= 0.95
    auto = ("--weights", "auto", "--budget-bytes", "25000", "-o", "narrow.vfy")
    said = vitrify(capsys, "compile", "digits.onnx", *MODEL, *auto, "--no-verify")
    assert "points lost" in said
    assert said.count(" * ") == 1
    assert "4 bits in" in vitrify(capsys, "info", "narrow.vfy")


def test_layers(capsys):
    arguments = ("digits.onnx", *DATA, *MODEL, "--layers", "--limit", "5")
    data = json.loads(vitrify(capsys, "accuracy", *arguments, "--json"))
    names = [layer["name"] for layer in data["layers"]]
    assert names[0] == "patch_embed"
    assert "head" in names
    assert all(layer["sqnr"] > 10 for layer in data["layers"])
    assert "SQNR" in vitrify(capsys, "accuracy", *arguments)


def test_split_and_limit(capsys):
    short = ("digits.onnx", *DATA, "--backend", "float", "--preprocess", SPEC, "--json")
    for options, images in ((("--split", "a"), 20), (("--limit", "7"), 7),
                            (("--split", "b", "--limit", "100"), COUNT - 20)):
        assert json.loads(vitrify(capsys, "accuracy", *short, *options))["images"] == images


ERRORS = {
    "no core": (("digits.onnx",), "--arch and --calib say how it becomes integers"),
    "no preprocessing": (
        ("digits.onnx", "--backend", "float"), "needs to know how it becomes the model's input",
    ),
    "layers of floats": (
        ("digits.onnx", "--backend", "float", "--layers"), "needs --backend golden",
    ),
    "no such split": (("digits.onnx", "--split", "c"), "no pictures of the split 'c'"),
    "no limit": (("digits.onnx", "--limit", "0"), "--limit must be at least 1, not 0"),
    "limits of nothing": (
        ("digits.onnx", *MODEL, "--max-drop", "1"), "--budget-bytes are for --weights auto",
    ),
    "no nibbles": (
        ("digits.onnx", *MODEL, "--arch", "plain.yaml", "--weights", "4"),
        "arch 'plain' is without 'nibbles', which weights of 4 bits need; use --weights 8",
    ),
    "no labels": (("digits.onnx", "--labels", "gone.csv"), "cannot read the labels"),
    "no pictures": (("digits.onnx", "--data", "gone"), "there is no directory 'gone'"),
    "no model": (("gone.onnx",), "no file 'gone.onnx'"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(capsys, arguments, message):
    model, *rest = arguments
    assert message in vitrify(capsys, "accuracy", model, *DATA, *rest, code=2)


def test_labels_beyond_the_classes(capsys):
    Path("many.csv").write_text("file,label\n0.png,10\n")
    message = vitrify(
        capsys, "accuracy", "digits.onnx", "--data", "pictures", "--labels", "many.csv",
        "--backend", "float", "--preprocess", SPEC, code=2,
    )
    assert "a label 10, and the model knows the classes 0 to 9" in message
