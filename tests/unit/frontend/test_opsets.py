"""Every operator in every operator set: defaults and attributes as ONNX Runtime has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny as t
from agree import assert_agrees, kinds
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise
from vitrify.frontend.load import OLDEST_OPSET
from vitrify.frontend.reference import run_node
from vitrify.ir import evaluate

#: Newest operator set that ONNX Runtime here and the front end know.
NEWEST = 23
OPSETS = tuple(range(OLDEST_OPSET, NEWEST + 1))
RNG = np.random.default_rng(17)
X = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
V = np.linspace(-4, 4, 60, dtype=np.float32).reshape(3, 20)
P = np.abs(V) + np.float32(0.1)
I64 = np.int64


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, I64)


#: Operator, inputs, attributes, first and last operator set of this spelling.
NODES: list[tuple[str, list[Any], dict[str, Any], int, int]] = [
    *[(name, [V], {}, 1, 99) for name in (
        "Abs", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "LeakyRelu",
        "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
        "Softsign", "Tanh", "ThresholdedRelu", "Tan", "Atan", "Asinh", "Shrink", "Identity",
        "HardSwish", "Mish", "Gelu", "Sinh", "Cosh",
    )],
    *[(name, [P], {}, 1, 99) for name in ("Log", "Sqrt")],
    ("Celu", [V], {"alpha": 0.4}, 1, 99),
    ("Elu", [V], {"alpha": 0.4}, 1, 99),
    ("Gelu", [V], {"approximate": "tanh"}, 1, 99),
    ("HardSigmoid", [V], {"alpha": 0.1, "beta": 0.3}, 1, 99),
    ("LeakyRelu", [V], {"alpha": 0.3}, 1, 99),
    ("Selu", [V], {"alpha": 1.1, "gamma": 0.9}, 1, 99),
    ("Shrink", [V], {"bias": 0.2, "lambd": 0.7}, 1, 99),
    ("ThresholdedRelu", [V], {"alpha": 0.5}, 1, 99),
    ("Clip", [V], {}, 1, 99),
    ("Clip", [V, np.float32(-1), np.float32(2)], {}, 11, 99),
    ("Clip", [V, None, np.float32(2)], {}, 11, 99),
    ("PRelu", [V, np.array([0.3], np.float32)], {}, 1, 99),
    ("Pow", [P, np.float32(3)], {}, 1, 99),
    *[(name, [V, V[::-1].copy()], {}, 1, 99) for name in ("Max", "Min", "Sum", "Mean")],
    *[(name, [V, np.float32(0.5)], {}, 1, 99) for name in ("Add", "Sub", "Mul", "Div")],
    *[(name, [V, np.float32(0.5)], {}, 1, 99) for name in ("Greater", "Less", "Equal")],
    *[(name, [V, np.float32(0.5)], {}, 12, 99) for name in ("GreaterOrEqual", "LessOrEqual")],
    ("Where", [V > 0, V, np.float32(0.5)], {}, 1, 99),
    *[(name, [X], {}, 1, 99) for name in ("Softmax", "LogSoftmax", "Hardmax", "Flatten")],
    *[(name, [X], {"axis": axis}, 1, 99)
      for name in ("Softmax", "LogSoftmax", "Hardmax", "Flatten") for axis in (0, 1, 2, 3, -1)],
    *[(f"Reduce{name}", [X], attributes, 1, 99)
      for name in ("Mean", "Sum", "Max", "L2", "L1", "SumSquare")
      for attributes in ({}, {"keepdims": 0})],
    *[(f"Reduce{name}", [X], {"axes": [1, -1]}, 1, 17) for name in ("Mean", "Max", "L2", "L1")],
    ("ReduceSum", [X], {"axes": [2]}, 1, 12),
    ("ReduceSum", [X, ints(2)], {"keepdims": 0}, 13, 99),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}, 13, 99),
    *[(f"Reduce{name}", [X, ints(1, -1)], {}, 18, 99) for name in ("Mean", "Max", "L2", "L1")],
    ("ReduceMean", [X], {"noop_with_empty_axes": 1}, 18, 99),
    ("Squeeze", [X[:1, :, :, :1]], {}, 1, 99),
    ("Squeeze", [X[:1]], {"axes": [0]}, 1, 12),
    ("Squeeze", [X[:1], ints(0)], {}, 13, 99),
    ("Unsqueeze", [X], {"axes": [0, -1]}, 1, 12),
    ("Unsqueeze", [X, ints(0, -1)], {}, 13, 99),
    ("Split", [X], {"axis": 2}, 1, 17),
    ("Split", [X], {"axis": 2, "num_outputs": 2}, 18, 99),
    ("Split", [X], {"axis": 3, "split": [1, 3]}, 1, 12),
    ("Split", [X, ints(1, 3)], {"axis": -1}, 13, 99),
    ("Slice", [X, ints(1), ints(-1)], {}, 10, 99),
    ("Slice", [X, ints(-1), ints(-4), ints(2), ints(-2)], {}, 10, 99),
    ("Transpose", [X], {}, 1, 99),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}, 1, 99),
    ("Reshape", [X, ints(0, -1)], {}, 5, 99),
    ("Expand", [X[:, :1], ints(2, 3, 1, 4)], {}, 8, 99),
    ("Tile", [X, ints(1, 2, 1, 1)], {}, 6, 99),
    ("Gather", [X, ints(2, 0)], {"axis": 1}, 1, 99),
    ("Gather", [X, ints(-1)], {}, 1, 99),
    ("GatherND", [X, np.array([[0, 1], [1, 2]], I64)], {}, 11, 99),
    ("GatherND", [X, np.array([[1], [2]], I64)], {"batch_dims": 1}, 12, 99),
    ("GatherElements", [X[0, 0], np.array([[0, 1, 2, 3]], I64)], {}, 11, 99),
    ("Concat", [X, X], {"axis": 1}, 4, 99),
    ("Pad", [X, ints(0, 0, 1, 1, 0, 0, 0, 2)], {}, 11, 99),
    ("Pad", [X, ints(0, 0, 1, 1, 0, 0, 0, 2)], {"mode": "edge"}, 11, 99),
    ("Pad", [X, ints(1, 2), None, ints(-1)], {}, 18, 99),
    ("DepthToSpace", [np.tile(X, (1, 4, 1, 1))], {"blocksize": 2}, 11, 99),
    ("DepthToSpace", [np.tile(X, (1, 4, 1, 1))], {"blocksize": 2, "mode": "CRD"}, 11, 99),
    ("SpaceToDepth", [X], {"blocksize": 2}, 1, 99),
    ("Dropout", [X], {}, 12, 99),
    ("Shape", [X], {}, 1, 99),
    ("Shape", [X], {"start": 1, "end": -1}, 15, 99),
    ("Size", [X], {}, 1, 99),
    ("TopK", [V, ints(3)], {}, 11, 99),
    ("TopK", [V, ints(3)], {"axis": 0, "largest": 0}, 11, 99),
    ("ArgMax", [V], {}, 1, 99),
    ("ArgMax", [V], {"axis": 1, "keepdims": 0}, 1, 99),
    ("OneHot", [ints(0, 2), ints(3), np.array([0, 1], np.float32)], {}, 11, 99),
    ("CumSum", [V, np.int64(1)], {}, 11, 99),
    ("BatchNormalization",
     [X, *(RNG.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))], {}, 9, 99),
    ("LayerNormalization", [V, np.ones(20, np.float32)], {}, 17, 99),
    ("Gemm", [V, V.T.copy()], {}, 11, 99),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], {}, 13, 99),
    ("Resize", [X, None, None, ints(2, 3, 8, 6)], {"mode": "nearest",
     "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 13, 99),
]  # fmt: skip


def _model(
    op: str, arrays: list[np.ndarray | None], attributes: dict[str, Any], opset: int
) -> onnx.ModelProto | None:
    """The node alone, or ``None`` where it does not exist so or is as in the set before."""
    names = [f"i{n}" if array is not None else "" for n, array in enumerate(arrays)]
    count = 2 if op in ("Split", "TopK") else 1
    node = onnx.helper.make_node(op, names, [f"o{n}" for n in range(count)], **attributes)
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if array is not None}
    graph = onnx.helper.make_graph(
        [node], "g",
        [onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype), np.shape(array)
        ) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    if opset > OLDEST_OPSET and onnx.defs.has(op, opset):
        newest = onnx.defs.get_schema(op, opset).since_version
        if newest != opset:
            return None
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 10, {"": opset}
    try:
        onnx.checker.check_node(node, context)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return model


@pytest.mark.parametrize("opset", OPSETS)
def test_constants_are_computed_as_onnx_runtime_does(opset: int) -> None:
    """What the tracer executes itself: constants, places of elements, samples of functions."""
    seen = 0
    for op, arrays, attributes, first, last in NODES:
        model = _model(op, arrays, attributes, opset) if first <= opset <= last else None
        if model is None:
            continue
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(model.SerializeToString(), options)
        except NoKernel:
            continue
        seen += 1
        given = [None if array is None else np.asarray(array) for array in arrays]
        feeds = {f"i{n}": array for n, array in enumerate(given) if array is not None}
        wanted = session.run(None, feeds)
        node = ir.from_proto(model).graph[0]
        found = run_node(node, given, {"": opset})
        for one, other in zip(found, wanted, strict=False):
            message = f"{op} {attributes} in operator set {opset}"
            assert one.shape == other.shape, message
            np.testing.assert_allclose(one, other, 1e-5, 1e-6, err_msg=message)
    assert seen > (100 if opset == OLDEST_OPSET else -1)


@pytest.mark.parametrize("opset", OPSETS)
def test_block_in_every_operator_set(opset: int) -> None:
    norm = t.NORM if opset >= 17 else """
        mu = ReduceMean <axes = [-1]> (x)  d = Sub(x, mu)  sq = Mul(d, d)
        var = ReduceMean <axes = [-1]> (sq)  ve = Add(var, epsilon)  sd = Sqrt(ve)
        xh = Div(d, sd)  scaled = Mul(xh, norm.weight)  normal = Add(scaled, norm.bias)
    """
    model = tiny(opset=opset, norm=norm)
    assert kinds(assert_agrees(model, picture(model))) == kinds(canonicalise(tiny()))


@pytest.mark.parametrize("opset", [11, 12, 13, NEWEST])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1, -3])
def test_softmax_of_every_operator_set(opset: int, axis: int | None) -> None:
    """Over all axes from the first on before 13, over one since; the default changed, too."""
    norm = "normal = Mul(x, norm.weight)"
    attribute = "" if axis is None else f"<axis = {axis}>"
    softmax = t.SOFTMAX.replace("<axis = -1>", attribute)
    model = tiny(opset=opset, norm=norm, softmax=softmax)
    if axis == 0:
        with pytest.raises(UnsupportedOpError, match=r"\(Softmax\).*images of a batch"):
            canonicalise(model)
        return
    canonical = canonicalise(model)
    wanted, found = (evaluate(m, picture(model), ["logits"])["logits"] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    last = axis in (-1, 3) or (axis is None and opset >= 13)
    assert ("Attention" in kinds(canonical)) == last
