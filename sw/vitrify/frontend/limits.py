"""Sizes that a file asks for are bounded before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from vitrify.arch.errors import ModelError

#: Bytes of the largest tensor that a node may make out of smaller ones: a list of 64 million
#: places, or 128 million weights.
LARGEST_BYTES = 1 << 29
#: Nodes of a model after its functions are inlined.
MOST_NODES = 200_000
#: Inputs up to this size may say how large a result becomes.
_FORM = 64
#: What the onnx package raises about a node that breaks ONNX's rules.
_BROKEN = (
    onnx.defs.SchemaError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError,
    KeyError, RuntimeError, ValueError,
)  # fmt: skip


class SizeError(ModelError):
    """A file asks for more memory than any vision transformer needs."""


def check_result(node: onnx.NodeProto, arrays: Mapping[str, np.ndarray], opset: int) -> None:
    """Raise :class:`SizeError` when ``node`` would make more of ``arrays`` than is allowed.

    What only moves or picks elements is never refused, however large.
    """
    largest = max([LARGEST_BYTES, *(array.nbytes for array in arrays.values())])
    width = max([1, *(array.itemsize for array in arrays.values())])
    for shape in _results(node, arrays, opset):
        if width * np.prod([float(size) for size in shape]) > largest:
            raise SizeError(
                f"Node '{node.name}' ({node.op_type}) makes a tensor of the shape {shape}, and "
                f"{LARGEST_BYTES >> 20} MiB are the most allowed; export a smaller model."
            )


def check_size(shape: Sequence[int]) -> None:
    """Raise :class:`SizeError` for a list of places of this shape that is too large."""
    if 8 * np.prod([float(size) for size in shape]) > LARGEST_BYTES:
        raise SizeError(
            f"The model makes a tensor of the shape {list(shape)}, and "
            f"{LARGEST_BYTES >> 20} MiB are the most allowed; export a smaller model."
        )


def _results(
    node: onnx.NodeProto, arrays: Mapping[str, np.ndarray], opset: int
) -> Sequence[list[int]]:
    """Shapes of the results, those that can be told beforehand."""
    if node.op_type == "OneHot":
        indices, depth = (arrays[name] for name in node.input[:2])
        return [[*indices.shape, int(depth.max(initial=0))]]
    types, data = {}, {}
    try:
        for name, array in arrays.items():
            floating = np.issubdtype(array.dtype, np.floating)
            kind = (
                onnx.TensorProto.FLOAT  # some operators know no other
                if floating
                else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            )
            types[name] = onnx.helper.make_tensor_type_proto(kind, array.shape)
            if array.size <= _FORM:
                known = array.astype(np.float32) if floating else array
                data[name] = onnx.numpy_helper.from_array(known, name)
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset, node.domain), node, types, data,
            opset_imports=[onnx.helper.make_opsetid(node.domain, opset)],
        )  # fmt: skip
    except _BROKEN:
        return []  # it breaks ONNX's rules, and executing it will say so
    dims = [result.tensor_type.shape.dim for result in found.values()]
    return [[dim.dim_value for dim in shape] for shape in dims]


def check_functions(model: ir.Model) -> None:
    """Raise :class:`SizeError` when inlining the functions would make too many nodes."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(graph: ir.Graph | ir.Function) -> int:
        total = 0
        for node in ir.traversal.RecursiveGraphIterator(graph):
            key = node.op_identifier()
            if key in model.functions and key not in sizes:
                sizes[key] = MOST_NODES  # a function that calls itself has no end
                sizes[key] = size(model.functions[key])
            total += sizes.get(key, 1)
        return min(total, MOST_NODES + 1)

    if size(model.graph) > MOST_NODES:
        raise SizeError(
            f"The model's functions call each other to more than {MOST_NODES} nodes; "
            "export it without functions."
        )
