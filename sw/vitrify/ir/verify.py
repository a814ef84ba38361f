"""The specification of a canonical graph, checked node by node."""

from __future__ import annotations

import onnx_ir as ir

from vitrify.arch.errors import ModelError

from .build import shape_of
from .op import DOMAIN, ShapeError, attributes_of
from .ops import OPS


class VerifyError(ModelError):
    """A graph is not canonical; the message names the first wrong node."""


def _check_node(node: ir.Node, known: set[ir.Value]) -> None:
    if node.domain != DOMAIN or node.op_type not in OPS:
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise ShapeError(f"{kind} is no canonical operation")
    op = OPS[node.op_type]
    if len(node.inputs) != len(op.inputs) or len(node.outputs) != 1:
        raise ShapeError(f"it must have the inputs ({', '.join(op.inputs)}) and one output")
    attributes = attributes_of(node)
    if set(attributes) != set(op.attributes):
        raise ShapeError(f"its attributes are {sorted(attributes)}, not {sorted(op.attributes)}")
    for name, kind in op.attributes.items():
        if node.attributes[name].type != kind:
            raise ShapeError(f"attribute {name!r} is not of type {kind.name}")
    overload = attributes[op.overload] if op.overload else ""
    if node.overload != overload:
        raise ShapeError(f"its overload is {node.overload!r}, not {overload!r}")
    shapes = []
    for formal, value in zip(op.inputs, node.inputs, strict=True):
        if value is None or value not in known:
            raise ShapeError(f"its input {formal!r} is produced by nothing before it")
        if formal in op.parameters and value.const_value is None:
            raise ShapeError(f"its parameter {formal!r} is not an initializer")
        if formal in op.tasks and not (value.is_graph_input() and value.dtype == ir.DataType.INT64):
            raise ShapeError(f"its input {formal!r} is not a graph input of int64")
        if value.shape is None:
            raise ShapeError(f"its input {formal!r} ({value.name!r}) has no shape")
        shapes.append(shape_of(value))
    output = node.outputs[0]
    wanted = op.shape(shapes, attributes)
    if output.shape is None or shape_of(output) != wanted:
        raise ShapeError(f"its output {output.name!r} has shape {output.shape}, not {wanted}")
    if output.dtype != ir.DataType.FLOAT:
        raise ShapeError(f"its output {output.name!r} is {output.dtype}, not float32")


def verify(model: ir.Model) -> None:
    """Check that ``model`` uses only canonical operations, rightly.

    Raises
    ------
    VerifyError
        Names the first node that is wrong, and how.
    """
    known = set(model.graph.inputs) | set(model.graph.initializers.values())
    names: set[str] = {value.name or "" for value in known}
    for node in model.graph:
        try:
            _check_node(node, known)
            for output in node.outputs:
                if not output.name or output.name in names:
                    raise ShapeError(f"its output name {output.name!r} is empty or taken")
                names.add(output.name)
        except ShapeError as error:
            raise VerifyError(f"Node {node.name!r} ({node.op_type}) is wrong: {error}.") from error
        known.update(node.outputs)
        if (node.domain, node.op_type, node.overload) not in model.functions:
            raise VerifyError(f"Node {node.name!r} ({node.op_type}) has no function body.")
    for output in model.graph.outputs:
        if output not in known or output.producer() is None:
            raise VerifyError(f"Graph output {output.name!r} is produced by no node.")
