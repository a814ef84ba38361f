"""Models as a backend of ONNX gets them, in the forms that the compiler takes.

Such a model need not have a batch, and its weights may be inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from vitrify.arch.errors import ModelError
from vitrify.frontend.load import OLDEST_OPSET

Array = npt.NDArray[Any]
#: Operator set that older models are brought to.
_CURRENT = 13


def modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` in an operator set that the compiler reads.

    Raises
    ------
    ModelError
        If ONNX cannot convert it.
    """
    opset = next((each.version for each in model.opset_import if not each.domain), _CURRENT)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _CURRENT)
    # the converter raises whatever it stumbles over
    except Exception as error:
        raise ModelError(
            f"the model is written in opset {opset}, and ONNX cannot convert it to {_CURRENT}: "
            f"{str(error).splitlines()[0]}; export it with a newer opset"
        ) from error


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are no weights."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def with_constants(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy whose inputs ``values`` are weights."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    left = [value for value in made.graph.input if value.name not in values]
    del made.graph.input[:]
    made.graph.input.extend(left)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()
    )
    return made


def counts_samples(model: onnx.ModelProto) -> bool:
    """Whether the first axes of all inputs are of the same size, or free: they may be a batch."""
    first = [
        shape.dim[0].dim_value if len(shape.dim) else -1
        for shape in (value.type.tensor_type.shape for value in inputs_of(model))
    ]
    return -1 not in first and len(set(first)) == 1


def as_sample(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy that takes and gives everything as one sample, with an axis of size one before it.

    ``None`` for a model with sizes that are not fixed: nothing says what a sample is.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    values = [*inputs_of(made), *graph.output]
    if not all(map(_is_fixed, values)):
        return None
    inner = {value.name: f"{value.name}.sample" for value in values}
    for node in _nodes(graph):
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    before, after = [], []
    outputs = {value.name for value in graph.output}
    for value in values:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value for dim in dims]
        out = value.name in outputs
        form = f"{value.name}.{'batch' if out else 'form'}"
        graph.initializer.append(
            numpy_helper.from_array(np.array([1, *sizes] if out else sizes, np.int64), form)
        )
        ends = (inner[value.name], value.name) if out else (value.name, inner[value.name])
        (after if out else before).append(
            helper.make_node("Reshape", [ends[0], form], [ends[1]], name=f"{ends[1]}.reshaped")
        )
        dims.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    kind = value.type
    return kind.HasField("tensor_type") and kind.tensor_type.HasField("shape") and all(
        dim.HasField("dim_value") for dim in kind.tensor_type.shape.dim
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of the graphs inside them, which see its tensors."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
