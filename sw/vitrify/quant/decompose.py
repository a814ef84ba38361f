"""Canonical operations that are made of others, before any is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from vitrify.ir import Builder, attach_functions, source_of

#: From a node to a value made of other operations, which the builder puts before it; ``None``
#: leaves the node as it is.
Decompose = Callable[[Builder, ir.Node], ir.Value | None]


def decompose(model: ir.Model, operations: Mapping[str, Decompose]) -> ir.Model:
    """A copy of a canonical model whose nodes are replaced by what ``operations`` make of them.

    What is made may be decomposed in turn.  The last node has the name of the one it replaces, and
    so has its result.
    """
    model = model.clone()
    builder = Builder.of(model.graph)
    while sum(_replace(builder, node, operations) for node in list(model.graph)):
        pass
    attach_functions(model)
    return model


def inputs(node: ir.Node) -> list[ir.Value]:
    """Inputs of a canonical node: none is optional."""
    return [value for value in node.inputs if value is not None]


def _replace(builder: Builder, node: ir.Node, operations: Mapping[str, Decompose]) -> bool:
    """Whether ``node`` has been replaced."""
    rule, graph = operations.get(node.op_type), builder.graph
    if rule is None:
        return False
    builder.before, builder.source = node, source_of(node) or node.name
    made = rule(builder, node)
    if made is None:
        return False
    (old,), read = node.outputs, inputs(node)
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    made.metadata_props.update(old.metadata_props)
    graph.remove(node, safe=True)
    for value in read:
        if value.is_initializer() and not value.uses():
            del graph.initializers[value.name or ""]
    producer = made.producer()
    assert producer is not None
    made.name, producer.name = old.name, node.name
    return True
