"""One ONNX node on NumPy arrays, by the reference implementation of the onnx package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

#: Operators whose older versions the reference lacks; the newer ones compute the same.
FLOORS = {"DequantizeLinear": 19, "QuantizeLinear": 19}


def run_node(
    node: ir.Node, arrays: Sequence[np.ndarray | None], opsets: Mapping[str, int]
) -> list[np.ndarray]:
    """Execute ``node``; ``None`` stands for an absent optional input."""
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
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in feeds],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
    )
    opsets = {**opsets, "": max(opsets.get("", 1), FLOORS.get(node.op_type, 1))}
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    with np.errstate(all="ignore"):
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]
