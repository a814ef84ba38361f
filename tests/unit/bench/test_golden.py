"""``python -m bench.golden``: what it compares is the same model, and every run is timed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from bench.cases import CASES
from bench.golden import least, measure, quantised
from vitrify.arch.presets import preset


def test_the_three_answer_alike_and_are_timed(tmp_path):
    case = next(case for case in CASES if case.name == "digits_vit")
    images, labels = case.test()
    images = images[:32]
    int8 = quantised(case.model, tmp_path / "int8.onnx", case.calibration()[:32])
    session = ort.InferenceSession(int8)
    found, = session.run(None, {session.get_inputs()[0].name: images})
    assert np.mean(found.argmax(1) == labels[:32]) > 0.9
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(int8).graph.node)
    program = case.compile(preset("nano"))
    times = measure(case.model, program, int8, images, threads=1, repeats=1)
    assert times.keys() == {"golden", "float", "int8"}
    assert all(0 < seconds < 60 for seconds in times.values())


def test_the_least_of_all_runs_counts():
    ran = []
    found = least({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 1, 3)
    assert ran == ["a", "b"] * 4
    assert found.keys() == {"a", "b"}
