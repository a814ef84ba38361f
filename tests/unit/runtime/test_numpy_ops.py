"""Operators of the host in NumPy give what ONNX Runtime gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from vitrify.arch.errors import BackendError
from vitrify.program.onnx_graph import Node, read
from vitrify.runtime.numpy_ops import OPERATORS, execute, missing

X = np.random.default_rng(4).normal(size=(2, 8, 6, 5)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1
MASK = X > 0


@dataclass(frozen=True)
class Case:
    op: str
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int = 17
    outputs: int = 1


def case(op: str, *inputs: Any, opset: int = 17, outputs: int = 1, **attributes: Any) -> Case:
    return Case(op, list(inputs), attributes, opset, outputs)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


#: Rows of reals and infinities.
ENDLESS = np.array([[1, -np.inf, 2], [-np.inf] * 3, [np.inf, 1, np.inf]], np.float32)
SIZES = ints(2, 8, 9, 13)
UP = np.array([1, 1, 2, 2.5], np.float32)
CASES = [
    *(case(op, X, X[:, :1]) for op in ("Add", "Sub", "Mul", "Div", "Greater", "Less")),
    *(case(op, X, X) for op in ("GreaterOrEqual", "LessOrEqual")),
    *(case(op, X) for op in (
        "Neg", "Abs", "Exp", "Floor", "Ceil", "Round", "Sign", "Reciprocal", "Tanh", "Sigmoid",
        "Relu", "Identity", "GlobalAveragePool", "Shape",
    )),
    *(case(op, POSITIVE) for op in ("Sqrt", "Log")),
    case("Pow", POSITIVE, np.float32(1.5)), case("Div", ints(-7, 7, 9), ints(2, -2, 4)),
    case("Max", X, X[:, :1], X[:, :, :1]), case("Min", X, X[:1]), case("Sum", X, X, X),
    case("Where", MASK, X, -X), case("Equal", ints(1, 2), ints(1, 3)), case("Not", MASK),
    case("And", MASK, ~MASK), case("Or", MASK, ~MASK),
    case("Clip", X, np.float32(-0.5), np.float32(0.7)), case("Clip", X, None, np.float32(0)),
    case("Cast", X, to=onnx.TensorProto.INT32),
    case("MatMul", X, X.transpose(0, 1, 3, 2)),
    case("Gemm", X[0, 0], X[0, 1], X[0, :6, 0, :1], alpha=0.5, beta=2.0, transB=1),
    case("Gemm", X[0, 0], X[0, 1], None, transB=1),
    case("LayerNormalization", X, X[0, 0, 0], X[0, 0, 1], axis=-1, epsilon=1e-3),
    *(case(op, X, axes=[1, -1], keepdims=0) for op in (
        "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceSumSquare",
        "ReduceLogSumExp", "ReduceProd",
    )),
    case("ReduceLogSumExp", ENDLESS, axes=[1]),
    case("ReduceMean", X), case("ReduceL2", X, ints(2), opset=18), case("ReduceSum", X, ints(3)),
    case("Softmax", X), case("Softmax", X, axis=1), case("Softmax", X, opset=11, axis=2),
    case("LogSoftmax", X, axis=1), case("LpNormalization", X, axis=1),
    case("LpNormalization", X, p=1),
    case("ArgMax", X, axis=1), case("ArgMin", X, keepdims=0),
    case("ArgMax", np.round(X), axis=1, select_last_index=1),
    case("TopK", np.round(X), ints(3), axis=1, outputs=2),
    case("TopK", X, ints(2), largest=0, outputs=2),
    case("TopK", ints(-(2**63), 2**60, 2**60 + 1), ints(3), outputs=2),
    case("Reshape", X, ints(0, -1, 5)), case("Transpose", X, perm=[0, 2, 3, 1]),
    case("Transpose", X), case("Flatten", X, axis=2), case("Flatten", X, axis=-1),
    case("Squeeze", X[:, :1], ints(1)), case("Squeeze", X[:1], opset=11, axes=[0]),
    case("Unsqueeze", X, ints(1, -1)), case("Unsqueeze", X, opset=11, axes=[0]),
    case("Concat", X, X[:, :2], axis=1),
    case("Slice", X, ints(1, -4), ints(7, 9999), ints(1, 2), ints(2, 1)),
    case("Slice", X, ints(-1), ints(-9999), ints(1), ints(-2)),
    case("Slice", X, ints(-9999), ints(-9999), ints(1), ints(-1)),
    case("Shape", X, opset=15, start=1), case("Shape", X, opset=15, start=-2, end=-1),
    case("Split", X, axis=1, outputs=2), case("Split", X, ints(3, 5), axis=1, outputs=2),
    case("Split", X, opset=11, axis=3, split=[1, 4], outputs=2),
    case("Gather", X, ints(0, -1, 2), axis=1), case("Expand", X[:, :1], ints(2, 8, 1, 1)),
    case("DepthToSpace", X, blocksize=2), case("DepthToSpace", X, blocksize=2, mode="CRD"),
    case("SpaceToDepth", X[:, :, :, :4], blocksize=2),
    *(
        case("Resize", X, None, None, SIZES, mode=mode, coordinate_transformation_mode=where)
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    ),
    case("Resize", X, None, UP, mode="linear"), case("Resize", X, UP, opset=10, mode="nearest"),
    *(
        case("Resize", X, None, UP, nearest_mode=mode)
        for mode in ("floor", "ceil", "round_prefer_ceil")
    ),
    case("Resize", X, None, UP[2:], opset=18, axes=[2, 3], mode="linear"),
    case("Constant", value_ints=[1, 2]),
]  # fmt: skip


def model_of(item: Case) -> tuple[bytes, dict[str, np.ndarray]]:
    feeds = {f"i{n}": np.asarray(x) for n, x in enumerate(item.inputs) if x is not None}
    names = [f"o{n}" for n in range(item.outputs)]
    node = helper.make_node(
        item.op, [f"i{n}" if x is not None else "" for n, x in enumerate(item.inputs)], names,
        **item.attributes,
    )
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype),
                                       v.shape) for k, v in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in names],
    )
    imports = [helper.make_opsetid("", item.opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    return model.SerializeToString(), feeds


@pytest.mark.parametrize("item", CASES, ids=lambda item: f"{item.op}-{item.opset}")
def test_an_operator_gives_what_onnx_runtime_gives(item: Case) -> None:
    model, feeds = model_of(item)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, feeds)
    graph = read(model)
    (node,) = graph.nodes
    found = execute(node, graph.opset, [feeds.get(name) for name in node.inputs])
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_every_operator_has_a_case() -> None:
    assert {item.op for item in CASES} == OPERATORS.keys()


def test_what_is_missing_is_named() -> None:
    model, _ = model_of(case("Erf", X))
    assert missing(read(model).nodes) == ["Erf"]


@pytest.mark.parametrize("item", [
    case("Resize", X, None, np.array([1, 1, 1e6, 1e6], np.float32)),
    case("Expand", X[:, :1], ints(2, 1 << 40, 1, 1)),
    case("Add", X.reshape(-1, 1, 1, 1), np.ones((480, 480, 9), np.float32)),
    case("Gather", np.ones((1, 1 << 15)), np.zeros(1 << 14, np.int64)),
    case("Concat", *[np.ones(1 << 20, np.bool_)] * 257, axis=0),
    case("Gemm", np.ones((1, 1 << 15)), np.ones((1, 1 << 14)), transA=1),
    case("MatMul", np.ones((1 << 13, 1, 2, 3)), np.ones((1, 1 << 14, 3, 2))),
], ids=lambda item: item.op)  # fmt: skip
def test_results_are_bounded_before_they_are_made(item: Case) -> None:
    node = Node(item.op, "", "n", ("",) * len(item.inputs), ("y",), item.attributes)
    with pytest.raises(BackendError, match=r"node 'n' .* 268,435,456 elements are the most"):
        execute(node, item.opset, item.inputs)


@pytest.mark.parametrize("attributes", [
    {"antialias": 1, "mode": "linear"}, {"keep_aspect_ratio_policy": "not_larger"},
    {"coordinate_transformation_mode": "half_pixel_symmetric"},
])  # fmt: skip
def test_a_resize_that_is_not_known_is_refused(attributes: dict[str, Any]) -> None:
    node = Node("Resize", "", "n", ("",) * 3, ("y",), attributes)
    with pytest.raises(BackendError, match=r"node 'n' .* needs ONNX Runtime"):
        execute(node, 19, [X, None, UP])
