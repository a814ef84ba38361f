"""One ONNX node on NumPy arrays, by the reference implementation of the onnx package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator


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
    names = [name if name else f"unused{place}" for place, name in enumerate(proto.output)]
    del proto.output[:]
    proto.output.extend(names)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in feeds],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports)
    with np.errstate(all="ignore"):
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]
