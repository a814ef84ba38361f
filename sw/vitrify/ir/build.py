"""Building canonical graphs: nodes by name from the operation table, shapes inferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .op import DOMAIN, DOMAIN_VERSION, OPSET, Dim, Shape
from .ops import OPS, attach_functions

#: Name of the symbolic batch dimension of every canonical graph.
BATCH = "N"
#: The ONNX file format version that knows function overloads.
IR_VERSION = 10
#: Metadata of a node that was made of one of the original model: its name.
_SOURCE = "vitrify.source"


def shape_of(value: ir.Value) -> Shape:
    """Shape of ``value`` as plain integers and dimension names."""
    if value.shape is None:
        raise ValueError(f"tensor {value.name!r} has no shape")
    return tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape.dims)


def array_of(value: ir.Value) -> np.ndarray:
    """The constant array behind an initializer."""
    if value.const_value is None:
        raise ValueError(f"tensor {value.name!r} is not a constant")
    return value.const_value.numpy()


def source_of(node: ir.Node) -> str:
    """Name of the node of the original model that ``node`` was made of; empty if it has none."""
    return node.metadata_props.get(_SOURCE, "")


def tensor(name: str, shape: Sequence[Dim], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """A typed value without a producer: a graph input."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


class Builder:
    """Appends canonical nodes to a graph.

    Parameters
    ----------
    inputs:
        Graph inputs, see :func:`tensor`.
    name:
        Name of the graph.
    """

    def __init__(self, inputs: Sequence[ir.Value], *, name: str = "canonical") -> None:
        opsets = {"": OPSET, DOMAIN: DOMAIN_VERSION}
        self.graph = ir.Graph(inputs, [], nodes=[], opset_imports=opsets, name=name)
        self._count = 0
        #: The node that new ones are put before; they go to the end when it is ``None``.
        self.before: ir.Node | None = None
        #: The source of nodes that are emitted without one.
        self.source: str | None = None

    @classmethod
    def of(cls, graph: ir.Graph) -> Builder:
        """A builder for more nodes of a canonical graph."""
        builder = cls([])
        numbers = [(node.name or "").rpartition("_")[2] for node in graph]
        builder.graph = graph
        builder._count = max((int(number) for number in numbers if number.isdecimal()), default=0)
        return builder

    def emit(
        self,
        op_name: str,
        *inputs: ir.Value | np.ndarray,
        name: str | None = None,
        source: str | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Append a node and return its output.

        Parameters
        ----------
        inputs:
            Values of the graph; an array becomes a float32 initializer of the node's own.
        name:
            Name of the node and of its output; a running number without it.
        source:
            Name of the node of the original model, kept as metadata.
        """
        op, source = OPS[op_name], source or self.source
        self._count += 1
        name = name or f"{op_name}_{self._count}"
        values = [
            value if isinstance(value, ir.Value) else self._parameter(f"{name}.{formal}", value)
            for formal, value in zip(op.inputs, inputs, strict=True)
        ]
        shape = op.shape([shape_of(value) for value in values], attributes)
        output = tensor(name, shape)
        node = ir.node(
            op.name,
            values,
            # onnx_ir takes an empty list for integers, too, but warns on the terminal
            {
                k: ir.AttrInt64s(k, ()) if isinstance(v, list) and not v else v
                for k, v in attributes.items()
            },
            domain=DOMAIN,
            overload=attributes[op.overload] if op.overload else "",
            outputs=[output],
            name=name,
            metadata_props={_SOURCE: source} if source else None,
        )
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)
        return output

    def model(self, outputs: Sequence[ir.Value], *, producer: str = "vitrify") -> ir.Model:
        """Close the graph: set its outputs and attach the function bodies."""
        self.graph.outputs.extend(outputs)
        model = ir.Model(self.graph, ir_version=IR_VERSION, producer_name=producer)
        attach_functions(model)
        return model

    def _parameter(self, name: str, array: np.ndarray) -> ir.Value:
        data = np.ascontiguousarray(array, dtype=np.float32)
        value = ir.Value(
            name=name,
            shape=ir.Shape(data.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
            const_value=ir.Tensor(data, name=name),
        )
        self.graph.register_initializer(value)
        return value
