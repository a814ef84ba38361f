"""``vitrify estimate``: programs, models, and what users do wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import vitrify
from tests.support.synthetic import vision_transformer
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate
from vitrify.program import Program

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compile_graph(vision_transformer(), preset("nano")).save("m.vfy")
    (tmp_path / "model.onnx").write_bytes((ROOT / "tests/data/timm_ts17.onnx").read_bytes())


def test_program(capsys):
    data = json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))
    program = Program.load("m.vfy")
    assert data["cycles"] == estimate(program).cycles
    assert data["macs"] == program.macs
    assert data["fits"] is True
    assert data["milliseconds"] == pytest.approx(data["cycles"] / 80e3)
    assert 0 < data["token_memory_bytes"] <= data["token_memory_capacity"]
    assert {layer["name"] for layer in data["layers"]} == {x.name for x in program.layers}
    text = vitrify(capsys, "estimate", "m.vfy")
    assert f"{data['cycles']:,}" in text
    assert data["bottleneck"] in text
    assert "LFE5U-85F: fits" in text


def test_a_program_on_a_core_with_another_memory(capsys):
    Path("slow.yaml").write_text("base: nano\ndram: {latency: 500, outstanding: 1}\n")
    fast = json.loads(vitrify(capsys, "estimate", "m.vfy", "--json"))
    slow = json.loads(vitrify(capsys, "estimate", "m.vfy", "--arch", "slow.yaml", "--json"))
    assert slow["cycles"] > 5 * fast["cycles"]
    assert slow["bottleneck"] == "weights"


def test_a_model_is_compiled_with_noise_or_with_images(capsys):
    noise = json.loads(vitrify(capsys, "estimate", "model.onnx", "--arch", "ulx3s", "--json"))
    vitrify(capsys, "estimate", "model.onnx", "--arch", "ulx3s")
    _, c, h, w = 1, *shape_of_model()
    images = np.random.default_rng(1).normal(size=(4, c, h, w)).astype(np.float32)
    np.save("calib.npy", images)
    real = json.loads(vitrify(
        capsys, "estimate", "model.onnx", "--arch", "ulx3s", "--calib", "calib.npy", "--json"
    ))
    assert noise["cycles"] == pytest.approx(real["cycles"], rel=0.02)
    assert not list(Path().glob("model.vfy"))


def shape_of_model():
    from vitrify.cli.models import image_input

    return image_input(Path("model.onnx"))[1]


@pytest.mark.parametrize(("arguments", "message"), [
    (("gone.vfy",), "no file 'gone.vfy'"),
    (("model.onnx",), "say with --arch for which core"),
    (("m.vfy", "--arch", "kv260"), "compile it again with --arch kv260"),
    (("m.vfy", "--calib", "x.npy"), "belong to a model"),
    (("model.onnx", "--arch", "ulx3s", "--calib", "gone.npy"), "'gone.npy' does not exist"),
], ids=str)
def test_errors(capsys, arguments, message):
    assert message in vitrify(capsys, "estimate", *arguments, code=2)
