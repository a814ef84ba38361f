"""``python -m bench.golden``: what it compares is the same model, and every run is timed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from bench import session
from bench.cases import CASES
from bench.golden import least, measure
from bench.quantised_models import S8_CHANNEL, quantise_file
from tests.unit.program.cases import copy_program
from vitrify.arch.presets import preset


def test_the_three_answer_alike_and_are_timed(tmp_path):
    case = next(case for case in CASES if case.name == "digits_vit")
    images, labels = case.test()
    images = images[:32]
    int8 = tmp_path / "int8.onnx"
    quantise_file(case.model, int8, S8_CHANNEL, case.calibration()[:32])
    session = ort.InferenceSession(int8)
    found, = session.run(None, {session.get_inputs()[0].name: images})
    assert np.mean(found.argmax(1) == labels[:32]) > 0.9
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(int8).graph.node)
    program = case.compile(preset("nano"))
    times = measure(case.model, program, int8, images, threads=1, repeats=1)
    assert times.keys() == {"golden", "float", "int8"}
    assert all(0 < seconds < 60 for seconds in times.values())


def test_a_fixed_batch_is_calibrated_image_by_image(tmp_path):
    case = next(case for case in CASES if case.name == "digits_vit")
    model = onnx.load(case.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    quantise_file(tmp_path / "one.onnx", tmp_path / "int8.onnx", S8_CHANNEL, case.calibration()[:3])
    assert any(n.op_type == "QuantizeLinear" for n in onnx.load(tmp_path / "int8.onnx").graph.node)


def test_the_least_of_all_runs_counts():
    ran = []
    found = least({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 1, 3)
    assert ran == ["a", "b"] * 4
    assert found.keys() == {"a", "b"}


def test_the_session_is_timed_beside_the_machine() -> None:
    program = copy_program()
    images = np.zeros((2, *program.input.shape), np.float32)
    found = session.measure(program, images, 1)
    assert found.keys() == {"session", "golden"}
    assert min(found.values()) > 0
