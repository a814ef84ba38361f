"""Preprocessing that comes with a model: timm's, Hugging Face's, and what ONNX metadata say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.support.command import vitrify
from vitrify.arch.errors import InputError
from vitrify.cli.models import known_preprocess, remark_on_pictures
from vitrify.program import Program
from vitrify.program.preprocess import parse
from vitrify.runtime.known_preprocess import find, of_timm, of_transformers

MODEL = Path(__file__).parents[2] / "data" / "timm_ts17.onnx"
HALF = [0.5, 0.5, 0.5]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "pretrained_cfg": {
        "mean": HALF, "std": HALF, "crop_pct": 0.9, "interpolation": "bicubic",
        "crop_mode": "center", "input_size": [3, 224, 224],
    },
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL.read_bytes())
    return path


def test_timm():
    assert parse(of_timm(TIMM)) == parse("augreg")
    assert parse(of_timm({"mean": MEAN, "std": STD, "interpolation": "bicubic"})) == parse(
        "imagenet"
    )
    assert of_timm({"model_type": "vit"}) is None
    squash = of_timm({"mean": HALF, "std": HALF, "crop_pct": 1.0, "crop_mode": "squash"})
    assert parse(squash).crop_mode == "squash"


@pytest.mark.parametrize(("config", "expected"), [
    # google/vit-base-patch16-224
    ({"do_normalize": True, "do_resize": True, "image_mean": HALF, "image_std": HALF, "size": 224},
     "mean=0.5,std=0.5,interpolation=bilinear,crop_mode=squash"),
    ({"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALF,
      "image_std": HALF, "resample": 2, "rescale_factor": 0.00392156862745098,
      "size": {"height": 224, "width": 224}},
     "mean=0.5,std=0.5,interpolation=bilinear,crop_mode=squash"),
    # facebook/deit-tiny-patch16-224
    ({"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
      "image_mean": MEAN, "image_std": STD, "resample": 3, "size": 256},
     "imagenet"),
    # openai/clip-vit-base-patch32
    ({"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
      "image_mean": MEAN, "image_std": STD, "resample": 3, "size": {"shortest_edge": 224}},
     "mean=0.485:0.456:0.406,std=0.229:0.224:0.225"),
    # facebook/convnext-tiny-224
    ({"crop_pct": 0.875, "do_normalize": True, "do_resize": True, "image_mean": MEAN,
      "image_std": STD, "resample": 3, "size": {"shortest_edge": 224}},
     "imagenet"),
    # pixels -1 to 1 without a normalisation
    ({"do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 127.5, "resample": 3,
      "size": {"shortest_edge": 8}}, "mean=0,std=0.5"),
])
def test_transformers(config, expected):
    assert parse(of_transformers(config)) == parse(expected)


def test_squash_keeps_everything():
    image = Image.fromarray(np.arange(16 * 8 * 3, dtype=np.uint8).reshape(16, 8, 3))
    found = parse("crop_mode=squash").picture(image, (3, 8, 8))
    expected = image.resize((8, 8), Image.Resampling.BICUBIC)
    assert (found.transpose(1, 2, 0) == np.asarray(expected)).all()


def test_where_it_is_looked_for(model):
    assert find(model) is None
    (model.parent / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert find(model) is None
    (model.parent / "config.json").write_text(json.dumps(TIMM))
    assert find(model).source.endswith("config.json'")
    (model.parent / "preprocessor_config.json").write_text(json.dumps(
        {"image_mean": MEAN, "image_std": STD, "size": 8}
    ))
    assert "preprocessor_config" in find(model).source
    loaded = onnx.load(model)
    onnx.helper.set_model_props(loaded, {"preprocess": "mean=0.25"})
    onnx.save(loaded, model)
    assert find(model).spec == "mean=0.25"


@pytest.mark.parametrize("text", [
    "{", "[1]", '{"pretrained_cfg": 3}', '{"mean": 3, "std": 1}', '{"mean": [0], "std": [0]}',
    '{"mean": ["x"], "std": [1]}', '{"mean": [0], "std": [1], "interpolation": "magic"}',
    '{"mean": [0], "std": [1], "crop_mode": "border"}', "[" * 100_000,
])
def test_what_cannot_be_read_is_named(model, text):
    (model.parent / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot read the preprocessing in .*config\.json"):
        find(model)


def test_command_line(model, capsys):
    pictures = model.parent / "photos"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(pictures / f"{i}.png")
    compiled = ("compile", "model.onnx", "--arch", "ulx3s", "--calib", "photos", "--no-verify")
    line = vitrify(capsys, *compiled, "--preprocess", "auto", code=2)
    assert "nothing says how pictures become the input of 'model.onnx'" in line
    (model.parent / "config.json").write_text(json.dumps(TIMM))
    vitrify(capsys, *compiled, "--preprocess", "auto")
    assert parse(Program.load("model.vfy").input.preprocess) == parse("augreg")
    vitrify(capsys, "run", "model.vfy", "--input", "photos", "--preprocess", "auto")


@pytest.mark.parametrize(("given", "beside", "words"), [
    ("imagenet", None, "warning: nothing that comes with the model confirms"),
    ("imagenet", TIMM, "warning: --preprocess imagenet is not what .*config.json' says"),
    ("augreg", TIMM, None),
    ("augreg", None, None),
    (None, TIMM, r"note: .*takes floats and no pictures; .*config.json' says crop_pct=0\.9"),
    (None, None, r"note: .*takes floats and no pictures$"),
    ("auto", TIMM, "preprocessing of .*config.json': crop_pct=0.9"),
])
def test_remarks(model, capsys, given, beside, words):
    if beside is not None:
        (model.parent / "config.json").write_text(json.dumps(beside))
    known_preprocess(model, given)
    remark_on_pictures(model, given)
    errors = capsys.readouterr().err
    assert (errors == "") == (words is None)
    if words is not None:
        assert re.search(words, errors), errors
