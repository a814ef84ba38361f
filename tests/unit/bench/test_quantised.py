"""The study of a quantised file, on digits_vit and few pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bench import quantised_study
from bench.cases import CASES
from bench.quantised_models import VARIANTS, quantise_file

CASE = CASES[0]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path: Path = tmp_path_factory.mktemp("study") / "model.onnx"
    quantise_file(CASE.model, path, VARIANTS[0], CASE.calibration()[:16])
    return onnx.load(path)


def _logits(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": CASE.test()[0][:8]})[0])


def test_every_rounding_is_of_one_kind(file: onnx.ModelProto) -> None:
    found = quantised_study.kinds(file)
    count = sum(node.op_type == "DequantizeLinear" for node in file.graph.node)
    assert sum(map(len, found.values())) == count
    assert len(found["input"]) == 1
    assert {"weights", "Add", "MatMul", "Softmax", "LayerNormalization"} <= found.keys()


def test_without_all_of_them_it_is_the_float_model(file: onnx.ModelProto) -> None:
    parent, model = onnx.load(CASE.model), file
    for kind in quantised_study.kinds(file):
        model = quantised_study.without(model, parent, kind)
    wanted = _logits(parent)
    assert np.abs(_logits(model) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(_logits(file) - wanted).max() > 1e-3 * np.abs(wanted).max()


def test_table_leaves_out_what_changes_nothing() -> None:
    row = {"labels": 99.0, "snr_float": 27.0, "top1": 90.0}
    found = {"model": "m", "arch": "nano", "images": 1000, "rows": [
        {"what": "file", "snr": None, **row},
        {"what": "file without Reshape", "tensors": 3, "snr": None, **row},
        {"what": "program", "snr": 25.04, **row},
    ]}  # fmt: skip
    lines = quantised_study.table(found).splitlines()
    assert lines[0].startswith("| m, `nano`, 1,000 pictures | tensors |")
    assert lines[2:] == [
        "| file |  |  | 99.0 % | 27.0 dB | 90.0 % |",
        "| program |  | 25.0 dB | 99.0 % | 27.0 dB | 90.0 % |",
    ]
