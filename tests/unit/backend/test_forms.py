"""Models of one sample: whatever has no axis of images is computed, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import vitrify.backend
from tests.support.ratio import decibel
from vitrify.arch.errors import ModelError

RNG = np.random.default_rng(17)
MAP = RNG.normal(size=(3, 4, 5)).astype(np.float32)


def run(op_type: str, inputs: list[np.ndarray], **attributes: object) -> tuple[np.ndarray, ...]:
    """What the core makes of the first input, and what is right."""
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    x, *weights = inputs
    graph = helper.make_graph(
        [node], "node", [helper.make_tensor_value_info("x0", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, name) for w, name in zip(weights, names[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x0": x})
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, wanted.shape))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (found,) = vitrify.backend.run_model(model, [x], arch="nano")
    assert found.shape == wanted.shape
    return found, wanted


@pytest.mark.parametrize(("op_type", "attributes"), [
    ("Softmax", {"axis": 0}), ("Softmax", {"axis": 1}),
    ("ReduceMean", {}), ("ReduceSum", {}), ("ReduceSum", {"keepdims": 0}), ("ReduceSumSquare", {}),
], ids=str)  # fmt: skip
def test_along_the_first_axis(op_type: str, attributes: dict[str, int]) -> None:
    found, wanted = run(op_type, [MAP], **attributes)
    assert decibel(wanted, found) > 20


def test_a_mean_of_one_channel() -> None:
    found, wanted = run("GlobalAveragePool", [MAP[:1, None]])
    assert decibel(wanted, found) > 20


def test_rows_of_images() -> None:
    """A transposition puts the batch where a patch would be."""
    weight = RNG.normal(size=(6, 4)).astype(np.float32)
    found, wanted = run("Gemm", [RNG.normal(size=(6, 3)).astype(np.float32), weight], transA=1)
    assert decibel(wanted, found) > 20


@pytest.mark.parametrize("shapes", [((4,), (2, 4, 1)), ((1, 2, 4, 3), (3,))])
def test_products_with_a_vector(shapes: tuple[tuple[int, ...], ...]) -> None:
    a, b = (RNG.normal(size=shape).astype(np.float32) for shape in shapes)
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph(
        [node], "node",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape)
         for n, x in (("a", a), ("b", b))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (a @ b).shape)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match="nor can it be cut"):
        vitrify.backend.run_model(model, [a, b], arch="nano")


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3)])
def test_what_depends_on_no_input(shape: tuple[int, ...]) -> None:
    node = helper.make_node("Shape", ["x"], ["y"])
    graph = helper.make_graph(
        [node], "node", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [len(shape)])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ModelError, match=r"does not depend on its image|nor can it be cut"):
        vitrify.backend.run_model(model, [np.zeros(shape, np.float32)], arch="nano")


def test_a_channel_that_never_changes() -> None:
    """It is far from zero: its bias has to be in steps that are not too fine."""
    x = RNG.normal(size=(4, 3, 4, 4)).astype(np.float32)
    x[:, 1] = 5
    weight = RNG.normal(size=(8, 3, 1, 1)).astype(np.float32)
    found, wanted = run("Conv", [x, weight])
    assert decibel(wanted, found) > 30
