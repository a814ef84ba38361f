"""Operators that ONNX itself defines by others, replaced by their bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from .integer import RULES
from .trace import handler_of

#: Domain of the bodies while they are functions of a model.
_DOMAIN = "vitrify.bodies"
_LOOPS = ("Loop", "Scan", "SequenceMap")


def _body_of(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    """What ONNX says that ``node`` computes, in other operators.

    ``None`` if it says nothing, or needs a loop.  What is known of the types and ranks of the
    node's inputs decides.
    """
    try:
        # onnx has no types for what a schema says about functions
        schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_context_dependent_function:
        versions = schema.context_dependent_function_opset_versions
    else:
        versions = schema.function_opset_versions
    version = max((known for known in versions if known <= opset), default=None)
    if version is None:
        return None
    if schema.has_context_dependent_function:
        types = [_type_of(value).SerializeToString() for value in node.inputs]
        text = schema.get_context_dependent_function_with_opset_version(
            version, ir.to_proto(node).SerializeToString(), types
        )
    else:
        text = schema.get_function_with_opset_version(version)
    body = onnx.FunctionProto.FromString(text)
    # attributes that the node leaves out are those of the operator
    for name in list(body.attribute):
        default = schema.attributes[name].default_value
        if name not in node.attributes and default.type:
            body.attribute.remove(name)
            body.attribute_proto.append(default)
    # outputs that the node lacks are made by nothing
    made = {name for part in body.node for name in part.output}
    outputs = [name if name in made else body.output[0] for name in body.output]
    del body.output[:]
    body.output.extend(outputs[: len(node.outputs)])
    loops = any(part.op_type in _LOOPS for part in body.node)
    return None if loops or not body.node else body


def _type_of(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.dtype is None:
        return onnx.TypeProto()
    shape = None if value.shape is None else [
        size if isinstance(size, int) else None for size in value.shape
    ]
    return onnx.helper.make_tensor_type_proto(value.dtype.value, shape)


def known_by_bodies(model: ir.Model) -> list[ir.Node]:
    """Nodes of operators that the front end reads by what ONNX says that they compute, only."""
    return [
        node for node in model.graph
        if handler_of(node, ()) is None and (node.domain, node.op_type) not in RULES
        and _body_of(node, model.opset_imports.get(node.domain, 1)) is not None
    ]


def open_bodies(model: ir.Model, nodes: Iterable[ir.Node]) -> list[str]:
    """Replace nodes of ``model`` by their bodies, in place.

    Returns
    -------
    list of str
        Names of the nodes that came; none if ONNX defines none of ``nodes`` by others.
    """
    before = {node.name for node in model.graph}
    for place, node in enumerate(nodes):
        body = _body_of(node, model.opset_imports.get(node.domain, 1))
        if body is None:
            continue
        body.domain, body.name = _DOMAIN, f"{node.op_type}_{place}"
        # a body holds for every later operator set until the operator's next version
        imports = {each.domain: model.opset_imports.get(each.domain, each.version)
                   for each in body.opset_import}
        del body.opset_import[:]
        body.opset_import.extend(onnx.helper.make_opsetid(*each) for each in imports.items())
        for part in body.node:
            part.name = f"{node.name or node.op_type}/{part.op_type}"
        function = ir.from_proto(body)
        model.functions[function.identifier()] = function
        node.domain, node.op_type = function.domain, function.name
        # graphs are in the body already
        for name, each in list(node.attributes.items()):
            if each.type == ir.AttributeType.GRAPH:
                del node.attributes[name]
    passes.InlinePass()(model)
    return [node.name or "" for node in model.graph if node.name not in before]
