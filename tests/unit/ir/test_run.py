"""ONNX Runtime as the reference: executed as written wherever a model is quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vitrify.ir import evaluate, operators, session_options
from vitrify.runtime import InferenceSession

HEAD = '<ir_version: 9, opset_import: ["": 19, "com.microsoft": 1]>\n'
QUANTISED = HEAD + """
m (float[1,1,4,4] image) => (float[1,1,4,4] y) <float s = {0.1}, uint8 z = {3}> {
    q = QuantizeLinear(image, s, z)
    y = DequantizeLinear(q, s, z)
}
"""
INSIDE = HEAD + """
m (float[1,1,4,4] image, bool c) => (float[1,1,4,4] y) {
    y = If <
        then_branch = a () => (float[1,1,4,4] t) { q, s, z = DynamicQuantizeLinear(image)
                                                  t = DequantizeLinear(q, s, z) },
        else_branch = b () => (float[1,1,4,4] e) { e = Identity(image) }
    > (c)
}
"""
AS_WRITTEN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def level(*op_types: str) -> Any:
    return session_options(op_types).graph_optimization_level


@pytest.mark.parametrize(
    "op_type",
    ["QuantizeLinear", "DequantizeLinear", "QLinearMatMul", "QLinearAdd", "QGemm", "ConvInteger",
     "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
     "QAttention", "MatMulNBits"],
)  # fmt: skip
def test_quantised_operators_are_executed_as_written(op_type: str) -> None:
    assert level("MatMul", op_type) == AS_WRITTEN
    assert level("MatMul", "Add", "Softmax") != AS_WRITTEN


def test_threads_that_wait_leave_the_processor_to_others() -> None:
    options = session_options(["MatMul"])
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_cpu_mem_arena


def test_operators_inside_branches_and_functions_count() -> None:
    assert "DynamicQuantizeLinear" in operators(onnx.parser.parse_model(INSIDE))
    proto = onnx.parser.parse_model(HEAD + "m (float[1] x) => (float[1] y) { y = Relu(x) }")
    proto.functions.append(
        onnx.parser.parse_function(
            '<domain: "d", opset_import: ["": 19]> f (x, s) => (y) { y = QuantizeLinear(x, s) }'
        )
    )
    assert operators(proto) == {"Relu", "QuantizeLinear"}


def test_evaluator_and_float_backend_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = []
    create = ort.InferenceSession

    def spy(model: Any, options: ort.SessionOptions, *rest: Any, **named: Any) -> Any:
        levels.append(options.graph_optimization_level)
        return create(model, options, *rest, **named)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    proto = onnx.parser.parse_model(QUANTISED)
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    found = evaluate(ir.from_proto(proto), {"image": image}, ["y"])["y"]
    np.testing.assert_allclose(found, image, atol=0.051)
    onnx.save(proto, tmp_path / "m.onnx")
    again = InferenceSession(tmp_path / "m.onnx", "float").run(None, {"image": image})[0]
    np.testing.assert_array_equal(again, found)
    assert levels == [AS_WRITTEN, AS_WRITTEN]


def test_feeds_get_the_types_of_the_inputs() -> None:
    proto = onnx.parser.parse_model(
        HEAD + "m (float16[1,1,2,2] image) => (float16[1,1,2,2] y) { y = Relu(image) }"
    )
    found = evaluate(ir.from_proto(proto), {"image": np.full((1, 1, 2, 2), 0.1, np.float32)})["y"]
    assert found.dtype == np.float16
    assert found.ravel()[0] == np.float16(0.1)
