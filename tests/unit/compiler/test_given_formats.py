"""Formats of an already quantised model: kept where the core has them, told where not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bench.cases import CASES
from bench.quantised_models import VARIANTS, as_qonnx, quantise_file
from tests.support.ratio import decibel
from vitrify.arch.errors import InputError
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler.driver import quantise_model
from vitrify.compiler.quantise import quantise
from vitrify.frontend import load, rounded
from vitrify.ir import Evaluator as FloatEvaluator
from vitrify.ir.quantisers import quantisers_of
from vitrify.ops.linear.integer import QLinear
from vitrify.program import preprocess
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.given import facts
from vitrify.quant.graph import QuantGraph
from vitrify.quant.requant import grid_steps

DIGITS = CASES[0]
NANO = preset("nano")
PER_CHANNEL = VARIANTS[1]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("quantised") / "digits.onnx"
    quantise_file(DIGITS.model, made, PER_CHANNEL, DIGITS.calibration()[:64])
    return made


@pytest.fixture(scope="module")
def graph(path: Path) -> QuantGraph:
    return quantise_model(path, NANO, None, preprocess=DIGITS.preprocess)[1]


def stored(path: Path, name: str) -> np.ndarray:
    (found,) = [t for t in onnx.load(path).graph.initializer if t.name == name]
    return onnx.numpy_helper.to_array(found)


def test_labels_without_calibration_images(path: Path, graph: QuantGraph) -> None:
    images = DIGITS.test()[0][:200]
    wanted = FloatEvaluator(load(path), ["logits"]).run({"image": images})["logits"]
    found = Evaluator(graph, NANO).outputs(images)["logits"][:, 0]
    assert np.mean(wanted.argmax(1) == found.argmax(1)) >= 0.99


def test_scale_and_zero_point_are_those_of_the_file(path: Path, graph: QuantGraph) -> None:
    (name,) = [op.out for op in graph.ops if op.name == "blocks.0.fc1"]
    tensor = graph.tensors[name]
    assert tensor.bits == 8
    assert tensor.scale == pytest.approx(stored(path, "/blocks.0/act/Mul_output_0_scale"))
    zero = int(stored(path, "/blocks.0/act/Mul_output_0_zero_point"))
    assert tensor.zero_point == zero - 128
    assert not tensor.copies


def test_weights_behind_a_kept_tensor_keep_their_integers(path: Path, graph: QuantGraph) -> None:
    (layer,) = [op for op in graph.ops if op.name == "blocks.0.fc2"]
    model = onnx.load(path)
    shape = layer.weight.shape[::-1]
    codes = [onnx.numpy_helper.to_array(t).T for t in model.graph.initializer
             if t.data_type == onnx.TensorProto.INT8 and tuple(t.dims) == shape]
    assert any(np.array_equal(code, layer.weight) for code in codes)


def test_every_format_is_told(path: Path, graph: QuantGraph) -> None:
    rows = {row["tensor"]: row for row in graph.quantisers}
    nodes = onnx.load(path).graph.node
    constants = {t.name for t in onnx.load(path).graph.initializer}
    quantised = {n.input[0] for n in nodes if n.op_type == "QuantizeLinear"} - constants
    assert quantised <= rows.keys()
    assert rows["/blocks.0/act/Mul_output_0"]["why"] == ""
    assert rows["/blocks.0/fc1/Add_output_0"]["why"] == ""  # the window of the table
    assert rows["blocks.0.fc2"] == {
        "tensor": "blocks.0.fc2", "file": "weights", "core": "int8", "why": ""}
    assert "16 bits" in rows["/blocks.0/Add_output_0"]["why"]
    assert "gain" in rows["/blocks.0/norm1/LayerNormalization_output_0"]["why"]
    assert "larger operation" in rows["/blocks.0/attn/Softmax_output_0"]["why"]
    assert "factors" in rows["blocks.0.fc1"]["why"]


def test_input_without_preprocessing(path: Path) -> None:
    _, graph = quantise_model(path, NANO, None)
    scale, zero = (stored(path, f"image_{what}") for what in ("scale", "zero_point"))
    np.testing.assert_allclose(graph.input.multiplier, 1 / scale, rtol=1e-6)
    assert graph.input.offset == int(zero) - 128
    (row,) = [row for row in graph.quantisers if row["tensor"] == "image"]
    assert row["why"] == ""


def test_qonnx_says_the_same(tmp_path: Path, path: Path, graph: QuantGraph) -> None:
    other = tmp_path / "qonnx.onnx"
    onnx.save(as_qonnx(onnx.load(path)), other)
    assert {n.op_type for n in onnx.load(other).graph.node} & {"Quant", "QuantizeLinear"} == {
        "Quant"}
    _, found = quantise_model(other, NANO, None, preprocess=DIGITS.preprocess)

    def kept(some: QuantGraph) -> set[tuple[str, str]]:
        return {(row["tensor"], row["core"]) for row in some.quantisers if not row["why"]}

    assert kept(graph) <= kept(found)


@pytest.fixture(scope="module")
def shown(path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ir.Model, QuantGraph]:
    folder = tmp_path_factory.mktemp("kept")
    return quantise_model(
        path, NANO, DIGITS.calibration()[:48], preprocess=DIGITS.preprocess, keep=folder
    )


def test_means_are_those_of_the_file(path: Path, shown: tuple[ir.Model, QuantGraph]) -> None:
    canonical, graph = shown
    calibration, images = DIGITS.calibration()[:48], DIGITS.test()[0][:200]
    scheme = preprocess.parse(DIGITS.preprocess)
    without = quantise(canonical, calibration, arch=NANO, preprocess=scheme)
    (adds,) = [op for op in graph.ops if op.name == "blocks.1.fc2"]
    (own,) = [q for q in quantisers_of(canonical) if q.value == graph.values[adds.name]]
    judge = FloatEvaluator(rounded(load(path)), ["logits", own.tensor])
    known, wanted = (judge.run({"image": some}) for some in (calibration, images))
    tensor, off, snr = graph.tensors[adds.out], [], []
    for some in (without, graph):
        judged = Evaluator(some, NANO)
        sums = tensor.dequantise(judged.run(calibration, {adds.name})[adds.name])
        apart = (sums - own.of(known[own.tensor])).mean(axis=(0, 1))
        off.append(np.abs(apart).max() / tensor.scale)
        snr.append(decibel(wanted["logits"], judged.outputs(images)["logits"][:, 0]))
    print(f"off by {off} steps, {snr} dB")
    assert off[1] <= 1 < 10 < off[0]
    assert snr[1] > snr[0] + 0.1


def test_means_of_few_images_stay(path: Path) -> None:
    """What four pictures have in common would move logits half a decibel away from the file's."""
    few = DIGITS.calibration()[:4]
    canonical, graph = quantise_model(path, NANO, few, preprocess=DIGITS.preprocess)
    without = quantise(canonical, few, arch=NANO, preprocess=preprocess.parse(DIGITS.preprocess))
    assert all(
        np.array_equal(one.requant.bias, other.requant.bias)
        for one, other in zip(graph.ops, without.ops, strict=True) if isinstance(one, QLinear)
    )


def test_integers_as_onnx_have_these_means(shown: tuple[ir.Model, QuantGraph]) -> None:
    assert shown[1].as_onnx["logits"] < 2


def test_a_file_of_qonnx_rounds_as_well(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "qonnx.onnx"
    onnx.save(as_qonnx(onnx.load(path)), other)
    images = DIGITS.test()[0][:32]
    wanted = FloatEvaluator(load(path), ["logits"]).run({"image": images})["logits"]
    found = FloatEvaluator(rounded(load(other)), ["logits"]).run({"image": images})["logits"]
    assert decibel(wanted, found) > 35  # but for codes between two


def test_a_program_carries_no_more_than_a_part_of_a_long_list() -> None:
    rows = [
        {"tensor": f"{i}", "file": "f", "core": "c", "why": "w" if i % 2 else ""}
        for i in range(1000)
    ]
    found = facts(rows)
    shown = found["changed"]
    assert found["kept"] == len(shown) + found["left_out"] == 500
    assert shown == [row for row in rows if row["why"]][: len(shown)]
    assert len(json.dumps(shown)) <= 1 << 14 < len(json.dumps(2 * shown))
    assert facts(rows[:100])["left_out"] == 0


def test_integers_of_sixteen_bits_are_told(tmp_path: Path) -> None:
    wide = next(v for v in VARIANTS if v.name == "u16s8 channel")
    made = tmp_path / "wide.onnx"
    quantise_file(DIGITS.model, made, wide, DIGITS.calibration()[:32])
    _, graph = quantise_model(made, NANO, DIGITS.calibration()[:16])
    rows = {row["tensor"]: row for row in graph.quantisers}
    assert rows["/blocks.0/act/Mul_output_0"]["why"] == "operands of products have 8 bits"


def test_model_without_quantisers_needs_images() -> None:
    with pytest.raises(InputError, match="nothing in the model quantises its input 'image'"):
        quantise_model(DIGITS.model, NANO, None)


def test_range_that_no_quantiser_says(tmp_path: Path, path: Path) -> None:
    model = onnx.load(path)
    (code,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear"
               and n.input[0] == "/blocks.0/Add_output_0"]
    (back,) = [n for n in model.graph.node if n.input[:1] == [code.output[0]]]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == back.output[0]:
                node.input[place] = code.input[0]
    model.graph.node.remove(code)
    model.graph.node.remove(back)
    partly = tmp_path / "partly.onnx"
    onnx.save(model, partly)
    with pytest.raises(InputError, match=r"no quantiser .* the range of 'blocks.0.attn.add'.*--ca"):
        quantise_model(partly, NANO, None)


def test_commands(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "digits.vfy"
    assert main(["compile", str(path), "--arch", "nano", "-o", str(program), "--preprocess",
                 DIGITS.preprocess]) == 0
    said = capsys.readouterr().out
    assert "formats of the quantised model are kept" in said
    assert main(["info", str(program), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["quantisers"] in said
    assert {"tensor", "file", "core", "why"} == set(data["changed"][0])
    plain = tmp_path / "plain.vfy"
    assert main(["compile", str(DIGITS.model), "--arch", "nano", "-o", str(plain)]) == 2
    assert "give --calib" in capsys.readouterr().err
    assert not plain.exists()


def test_steps_of_integers() -> None:
    rng = np.random.default_rng(0)
    code = rng.integers(-7, 8, (3, 40)).astype(np.float64)
    code[0, 0], code[1, 0], code[2] = 7, 7, 0
    weight = code * np.array([[0.3], [1.0], [1.0]])
    weight[1] += rng.normal(size=40)
    steps = grid_steps(weight, 127)
    np.testing.assert_allclose(steps, [0.3 / 18, 0, 0], rtol=1e-9)
