"""One ONNX node on NumPy arrays, by the reference implementation of the onnx package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from .limits import check_result

#: Operators whose older versions the reference lacks; the newer ones compute the same.
FLOORS = {"BatchNormalization": 15, "DequantizeLinear": 19, "QuantizeLinear": 19}
#: Before this operator set a softmax ran over all axes from ``axis`` (default 1) on, as one.
ONE_AXIS = 13
SOFTMAXES = ("Softmax", "LogSoftmax", "Hardmax")
#: What the reference of the onnx package gets wrong, or refuses, unless it is asked as below.
_ASKED = ("BatchNormalization", "OneHot", *SOFTMAXES)


def _alone(
    node: ir.Node, arrays: Sequence[np.ndarray | None], opsets: Mapping[str, int], *, typed: bool
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of ``node`` alone, and its feeds; all are said to be float32 unless ``typed``.

    The reference takes any type for any input, as long as it does not know.
    """
    proto = onnx.NodeProto()
    proto.CopyFrom(ir.to_proto(node))
    feeds = {f"i{place}": array for place, array in enumerate(arrays) if array is not None}
    del proto.input[:]
    proto.input.extend(
        f"i{place}" if array is not None else "" for place, array in enumerate(arrays)
    )
    names = [f"o{place}" for place in range(len(node.outputs))]
    del proto.output[:]
    proto.output.extend(names)
    types = {
        name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) if typed else onnx.TensorProto.FLOAT
        for name, array in feeds.items()
    }
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [
            onnx.helper.make_tensor_value_info(name, types[name], array.shape if typed else None)
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in names],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), feeds


def widened(array: np.ndarray) -> np.ndarray:
    """``array`` of a type that NumPy has itself: bfloat16 and the like become float32."""
    known = array.dtype.isbuiltin == 1
    return array if known or array.dtype.kind not in "fV" else array.astype(np.float32)


def run_node(
    node: ir.Node, arrays: Sequence[np.ndarray | None], opsets: Mapping[str, int]
) -> list[np.ndarray]:
    """Execute ``node``; ``None`` stands for an absent optional input."""
    if node.op_type in SOFTMAXES and opsets.get("", 1) < ONE_AXIS and arrays[0] is not None:
        return _over_all_axes(node, arrays[0])
    if node.op_type == "OneHot" and arrays[1] is not None:
        # a depth may also be a list of one number
        arrays = [arrays[0], arrays[1].reshape(()), *arrays[2:]]
    floor = max(opsets.get("", 1), FLOORS.get(node.op_type, 1))
    model, feeds = _alone(node, arrays, {**opsets, "": floor}, typed=False)
    check_result(model.graph.node[0], feeds, opsets.get(node.domain, 1))
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, feeds)
    return [widened(np.asarray(result)) for result in results]


def _over_all_axes(node: ir.Node, x: np.ndarray) -> list[np.ndarray]:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    flat = x.reshape(int(np.prod(x.shape[: axis % x.ndim])), -1)
    modern = ir.Node("", node.op_type, [], num_outputs=1, name=node.name)
    return [result.reshape(x.shape) for result in run_node(modern, [flat], {"": ONE_AXIS})]


def runs(
    node: ir.Node, arrays: Sequence[np.ndarray | None], opsets: Mapping[str, int]
) -> bool:
    """Whether ONNX Runtime executes ``node`` on such arrays."""
    try:
        model, feeds = _alone(node, arrays, opsets, typed=True)
        check_result(model.graph.node[0], feeds, opsets.get(node.domain, 1))
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, feeds)
    # ONNX Runtime's exceptions share no base of their own, and onnx raises what it likes
    except Exception:
        return False
    return True


def foldable(opsets: Mapping[str, int]) -> Callable[[ir.Node], bool | None]:
    """Which nodes constant folding may execute: ``False`` for no, ``None`` for its own rules."""

    def decide(node: ir.Node) -> bool | None:
        if node.op_type in _ASKED or any(
            attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()
        ):
            return False
        arrays = [
            None if value is None or value.const_value is None else value.const_value.numpy()
            for value in node.inputs
        ]
        model, feeds = _alone(node, arrays, opsets, typed=False)
        check_result(model.graph.node[0], feeds, opsets.get(node.domain, 1))
        return None

    return decide
