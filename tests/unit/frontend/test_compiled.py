"""From unusual spellings to the program: golden computes what ONNX Runtime does on the file."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import tiny as t
from test_activations import WRITTEN, C
from tiny import tiny

from tests.support.compiled import Compiled, compiled


def of(tmp_path: Path, model: ir.Model, **options: float) -> Compiled:
    ir.save(model, tmp_path / "model.onnx")
    return compiled(tmp_path / "model.onnx", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["Selu", "LeakyRelu 0.2", "Softsign", "Clip 0 20", "Clip -3 2", "Sin", "Where"]
)
def test_any_function_becomes_a_table(name: str, tmp_path: Path) -> None:
    assert of(tmp_path, tiny(activation=WRITTEN[name], opset=20)).snr() >= 30


def test_clamp_that_only_large_inputs_reach(tmp_path: Path) -> None:
    model = tiny(activation=WRITTEN["Clip 0 20"], opset=20)
    assert of(tmp_path, model, scale=100).snr() >= 25


def test_clamp_of_the_residual_stream(tmp_path: Path) -> None:
    clamp = f"yy = Add(x, projected)  lo = {C.format(-2.0)}  hi = {C.format(2.0)}\n"
    clamp += "y = Clip(yy, lo, hi)"
    residual = t.RESIDUAL.replace("y = Add(x, projected)", clamp)
    assert of(tmp_path, tiny(residual=residual, opset=20), scale=2).snr() >= 28
