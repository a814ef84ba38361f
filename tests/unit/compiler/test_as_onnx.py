"""The integer graph as ONNX: standard operators, the core's integers, close to golden."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.calibration import digits_calibration, photo_crops
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler.as_onnx import as_onnx, closeness
from vitrify.compiler.driver import quantise_model
from vitrify.quant.precision import size
from vitrify.quant.wanted import Weights

MODELS = Path(__file__).resolve().parents[3] / "models"
NANO = preset("nano")


def digits(count: int) -> np.ndarray:
    pixels = digits_calibration(count).transpose(0, 3, 1, 2)
    return ((pixels / 255 - 0.305) / 0.376).astype(np.float32)


def crops(count: int) -> np.ndarray:
    pixels = photo_crops(count, 32).transpose(0, 3, 1, 2)
    return ((pixels / 255 - 0.47) / 0.25).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "images"), [("digits_vit", digits(8)), ("cifar10_moe_vit", crops(16))]
)
def test_close_to_golden(tmp_path: Path, name: str, images: np.ndarray) -> None:
    _, graph = quantise_model(MODELS / name / "model.onnx", NANO, images, keep=tmp_path)
    assert 0 < graph.as_onnx["logits"] < 1
    model = onnx.load(tmp_path / "5_integer.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert [value.name for value in model.graph.output] == ["logits"]
    stored = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    layers = {op.name: op for op in graph.ops}
    assert any(np.array_equal(a, layers["blocks.0.fc2"].weight) for a in stored
               if a.dtype == np.int8)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["QuantizeLinear"] >= sum(op.name in graph.values for op in graph.ops)


def test_weights_are_those_of_the_graph() -> None:
    """With a head of zeros it is far away: the file has the integers, not the float weights."""
    images = digits(8)
    canonical, graph = quantise_model(MODELS / "digits_vit/model.onnx", NANO, images)
    (head,) = [op for op in graph.ops if op.name == "head"]
    empty = replace(head, weight=np.zeros_like(head.weight))
    changed = replace(graph, ops=[empty if op is head else op for op in graph.ops])
    near, far = (closeness(as_onnx(canonical, g), graph, NANO, images)["logits"]
                 for g in (graph, changed))
    assert near < 1
    assert far > 10 * near


def test_layers_of_few_bits_among_others_have_their_own_scales() -> None:
    images = digits(8)
    _, graph = quantise_model(MODELS / "digits_vit/model.onnx", NANO, images)
    budget = sum(map(size, graph.ops)) * 3 // 4
    canonical, mixed = quantise_model(
        MODELS / "digits_vit/model.onnx", NANO, images, weights=Weights(None, None, budget)
    )
    assert closeness(as_onnx(canonical, mixed), mixed, NANO, images)["logits"] < 1


def test_command_says_how_close(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "images.npy", digits(8))
    assert main([
        "compile", str(MODELS / "digits_vit/model.onnx"), "--arch", "nano",
        "--calib", str(tmp_path / "images.npy"), "-o", str(tmp_path / "d.vfy"),
        "--keep-intermediates", str(tmp_path / "kept"), "--no-verify",
    ]) == 0
    assert "output 'logits' is 0." in capsys.readouterr().out
    assert (tmp_path / "kept/5_integer.onnx").is_file()


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "images.npy", digits(8))
    assert main([
        "compile", str(MODELS / "digits_vit/model.onnx"), "--arch", "nano",
        "--calib", str(tmp_path / "images.npy"), "-o", str(tmp_path / "d.vfy"),
        "--keep-intermediates", str(tmp_path / "images.npy"),
    ]) == 2
    assert "images.npy': it is no directory" in capsys.readouterr().err
    assert not (tmp_path / "d.vfy").exists()
