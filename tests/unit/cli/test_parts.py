"""Commands on models that are cut in parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.tails import TAILS, with_tail
from tests.unit.program.test_application import application, host_model
from vitrify.cli.main import main
from vitrify.program import HostPart
from vitrify.runtime import InferenceSession


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    onnx.save(with_tail(*TAILS["softmax, top-k"]), folder / "m.onnx")
    images = np.random.default_rng(1).normal(size=(4, 3, 16, 16)).astype(np.float32)
    np.save(folder / "images.npy", images)
    return folder


def compile_of(folder: Path, *more: str) -> int:
    return main(["compile", str(folder / "m.onnx"), "--arch", "nano", "--calib",
                 str(folder / "images.npy"), "-o", str(folder / "m.vfy"), *more])  # fmt: skip


def test_compile_info_and_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_of(folder, "--keep-intermediates", str(folder / "kept")) == 0
    text = capsys.readouterr().out
    assert "Softmax, TopK" in text
    assert "100.0 % of the multiplications on the core" in text
    assert {p.name for p in (folder / "kept").iterdir()} >= {"part_0", "part_1.onnx"}
    assert main(["info", str(folder / "m.vfy"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["where"] for row in data["parts"]] == ["core", "host"]
    assert "(Softmax) is not supported" in data["parts"][1]["why"][0]
    assert len(data["programs"]) == 1
    assert main(["info", str(folder / "m.vfy")]) == 0
    assert "matrix products" in capsys.readouterr().out
    images = str(folder / "images.npy")
    found = {}
    for backend in ("golden", "float"):
        out = str(folder / f"{backend}.npz")
        model = str(folder / ("m.vfy" if backend == "golden" else "m.onnx"))
        assert main(["run", model, "--input", images, "--backend", backend, "-o", out]) == 0
        found[backend] = dict(np.load(out))
    assert found["golden"]["i"].shape == found["float"]["i"].shape
    assert np.abs(found["golden"]["v"] - found["float"]["v"]).max() < 0.02
    capsys.readouterr()
    for command in (["estimate", str(folder / "m.vfy")],
                    ["export", str(folder / "m.vfy"), "--input", images, "-o", str(folder / "c")],
                    ["routing", str(folder / "m.vfy"), "--data", images]):  # fmt: skip
        assert main(command) == 2
        assert "is an application in parts" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["BOOL", "UINT8"])
def test_the_largest_of_any_numbers(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = host_model()
    number = TensorProto.DataType.Value(kind)
    model.graph.node.append(helper.make_node("Cast", ["best"], ["y"], "cast", to=number))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", number, ["N", 9]))
    core, _ = application().parts
    application(outputs=("y",), parts=(core, HostPart(model=model.SerializeToString()))).save(
        tmp_path / "a.vfy"
    )
    images = np.random.default_rng(1).random((2, 3, 4, 8)).astype(np.float32)
    np.save(tmp_path / "i.npy", images)
    assert main(["run", str(tmp_path / "a.vfy"), "--input", str(tmp_path / "i.npy")]) == 0
    shown = capsys.readouterr().out
    (found,) = InferenceSession(tmp_path / "a.vfy").run(None, {"image": images})
    first = int(np.argmax(found[0]))
    assert f"0  {first} ({float(found[0, first]):.3f})" in shown


def test_strict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_of(folder, "--strict") == 2
    assert "Node 'p' (Softmax) is not supported" in capsys.readouterr().err


def test_info_of_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder / "m.onnx"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["on the core"] == "in parts, with 100.0 % of the multiplications"
    assert [row["operators"] for row in data["parts"]][1] == "Softmax, TopK"
