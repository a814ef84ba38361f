"""What a row of the operation table is made of: the row itself, shapes, the function it becomes.

Shapes are tuples of integers and names of symbolic dimensions; ``N`` is the number of images,
``T`` of tokens, ``D`` of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.parser
import onnx_ir as ir

#: Domain of the canonical operations, and its version.
DOMAIN = "vitrify"
DOMAIN_VERSION = 1
#: Metadata of a graph output: the type it has in the original model, when that is not float32.
DTYPE = "vitrify.dtype"
#: The ONNX operator set that the function bodies are written in.
OPSET = 18

Dim = int | str
Shape = tuple[Dim, ...]
Attributes = Mapping[str, Any]
ShapeRule = Callable[[Sequence[Shape], Attributes], Shape]

INT, INTS = ir.AttributeType.INT, ir.AttributeType.INTS
FLOAT, STRING = ir.AttributeType.FLOAT, ir.AttributeType.STRING


class ShapeError(ValueError):
    """The shapes or attributes of a node contradict its row; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One canonical operation.

    Parameters
    ----------
    parameters:
        Those of ``inputs`` that must be initializers.
    tasks:
        Those of ``inputs`` that must be graph inputs of type int64.
    body:
        ONNX text from the inputs to ``result``; a mapping when the operation has one body per
        value of its ``overload`` attribute (an ONNX function overload of the same name).
    result:
        What the text calls the result: ``y`` when ``None``, or ``z`` where an input is called y.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    attributes: Mapping[str, ir.AttributeType]
    shape: ShapeRule
    body: str | Mapping[str, str]
    overload: str | None = None
    result: str | None = None


def require(condition: bool, message: str) -> None:
    """Raise a :class:`ShapeError` with ``message`` unless ``condition``."""
    if not condition:
        raise ShapeError(message)


def last(shape: Shape) -> Dim:
    """The channels of ``[N, D]`` or ``[N, T, D]``."""
    require(len(shape) >= 2, f"its input has shape {shape}, but rank 2 or 3 is needed")
    return shape[-1]


def tokens(shape: Shape) -> tuple[Dim, int, Dim]:
    """The sizes of ``[N, T, D]``, T a number."""
    require(len(shape) == 3, f"its input has shape {shape}, but [N, T, D] is needed")
    require(isinstance(shape[1], int), f"the number of tokens {shape[1]!r} is not a constant")
    return shape[0], int(shape[1]), shape[2]


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Plain Python values of a node's attributes."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def function_of(op: Op, overload: str = "") -> ir.Function:
    """Build the ONNX function of ``op`` (of one overload of it)."""
    body = op.body if isinstance(op.body, str) else op.body[overload]
    result = op.result or ("z" if "y" in op.inputs else "y")
    formals = f"<{', '.join(op.attributes)}>" if op.attributes else ""
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n'
        f"{op.name} {formals} ({', '.join(op.inputs)}) => ({result}) {{\n{body}\n}}"
    )
    proto = onnx.parser.parse_function(text)
    proto.overload = overload
    proto.doc_string = op.doc
    return ir.from_proto(proto)
