"""ONNX graphs as a program carries them, read without the onnx package and checked.

A board has NumPy alone, and a program file may come from anyone.  What is read here is what a part
of the host may be: one graph of operators of known domains, every weight inside, no branches,
loops or functions.  Anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import ProgramError
from vitrify.arch.text import short

#: Domains of operators: ONNX, and what ONNX Runtime adds.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
MOST_NODES = 100_000
MOST_TEXT = 4096
#: NumPy types of the numbers of TensorProto.DataType that NumPy has.
TYPES: dict[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip

Fields = list[tuple[int, Any]]


@dataclass(frozen=True)
class Node:
    """One operator; an absent optional input is an empty name."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or an output; ``None`` in ``shape`` is a free size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Graph:
    """What an ONNX model says.  ``opset`` is that of ONNX's own operators."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: dict[str, npt.NDArray[Any]]
    opset: int


def read(data: bytes | memoryview) -> Graph:
    """Read and check an ONNX model.

    Raises
    ------
    ProgramError
        If it is damaged, or not what a part of the host may be.
    """
    try:
        return _model(_fields(memoryview(data)))
    except (IndexError, ValueError, TypeError, OverflowError) as error:
        raise ProgramError("its ONNX model is damaged") from error


# Protocol buffers --------------------------------------------------------------------------
def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: memoryview) -> Fields:
    """Numbers and values of the fields of a message: integers, or the bytes of other kinds."""
    found, at = [], 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        else:
            if kind == 2:
                size, at = _varint(data, at)
            else:
                size = {1: 8, 5: 4}[kind] if kind in (1, 5) else -1
            if not 0 <= size <= len(data) - at:
                raise ValueError("a field that reaches beyond its message")
            value, at = data[at : at + size], at + size
        found.append((number, value))
    return found


def _all(fields: Fields, number: int) -> list[Any]:
    return [value for at, value in fields if at == number]


def _one(fields: Fields, number: int, default: Any) -> Any:
    """A field that comes once: of several, readers of ONNX take the last, or merge them."""
    found = _all(fields, number)
    if len(found) > 1:
        raise ValueError("a field that comes twice")
    return found[0] if found else default


def _text(value: Any) -> str:
    text = bytes(value).decode()
    if len(text) > MOST_TEXT:
        raise ProgramError(f"its ONNX model has a name of more than {MOST_TEXT} characters")
    return text


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _integers(values: list[Any]) -> list[int]:
    """Repeated integers, packed or not."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_signed(number))
    return found


def _reals(values: list[Any], kind: str = "<f4") -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *(np.frombuffer(value, kind) for value in values)])


# Messages of ONNX --------------------------------------------------------------------------
def _model(fields: Fields) -> Graph:
    if _all(fields, 25):
        raise ProgramError("its ONNX model has functions, which no part of the host has")
    opset = 0
    for entry in map(_fields, _all(fields, 8)):
        if _text(_one(entry, 1, b"")) in ("", "ai.onnx"):
            opset = _one(entry, 2, 0)
    (graph,) = (_fields(value) for value in _all(fields, 7))
    if _all(graph, 15):
        raise ProgramError("its ONNX model has sparse weights, which no part of the host has")
    constants = dict(_tensor(_fields(value)) for value in _all(graph, 5))
    inputs = tuple(_value(_fields(value)) for value in _all(graph, 11))
    outputs = tuple(_value(_fields(value)) for value in _all(graph, 12))
    if len(_all(graph, 1)) > MOST_NODES:
        raise ProgramError(f"its ONNX model has more than {MOST_NODES:,} nodes")
    nodes = tuple(_node(_fields(value)) for value in _all(graph, 1))
    found = Graph(nodes, inputs, outputs, constants, opset)
    _check(found)
    return found


def _check(graph: Graph) -> None:
    """Every tensor is made once and before it is read."""
    known = {"", *graph.constants, *(value.name for value in graph.inputs)}
    for node in graph.nodes:
        if node.domain not in DOMAINS:
            raise ProgramError(
                f"node {short(node.name)} of its ONNX model is of the domain {short(node.domain)}, "
                f"and a part of the host has operators of ONNX and com.microsoft only"
            )
        for name in node.inputs:
            if name not in known:
                raise ProgramError(
                    f"node {short(node.name)} of its ONNX model reads {short(name)}, which nothing "
                    f"before it makes"
                )
        for name in filter(None, node.outputs):
            if name in known:
                raise ProgramError(f"its ONNX model makes the tensor {short(name)} twice")
            known.add(name)
    for value in graph.outputs:
        if value.name not in known or not graph.nodes:
            raise ProgramError(f"its ONNX model makes no output {short(value.name)}")


def _value(fields: Fields) -> Value:
    name = _text(_one(fields, 1, b""))
    kind = _fields(_one(_fields(_one(fields, 2, b"")), 1, memoryview(b"")))
    dtype = TYPES.get(_one(kind, 1, 0))
    if not name or dtype is None:
        raise ProgramError(f"tensor {short(name)} of its ONNX model is of no known type")
    sizes: list[int | None] = []
    for shape in _all(kind, 2):
        for dim in map(_fields, _all(_fields(shape), 1)):
            size = _one(dim, 1, None)
            sizes.append(None if size is None else _signed(size))
    return Value(name, dtype, tuple(sizes))


def _node(fields: Fields) -> Node:
    attributes = dict(_attribute(_fields(value)) for value in _all(fields, 5))
    domain = _text(_one(fields, 7, b""))
    return Node(
        _text(_one(fields, 4, b"")), domain, _text(_one(fields, 3, b"")),
        tuple(map(_text, _all(fields, 1))), tuple(map(_text, _all(fields, 2))), attributes,
    )


def _attribute(fields: Fields) -> tuple[str, Any]:
    name, kind = _text(_one(fields, 1, b"")), _one(fields, 20, 0)
    match kind:
        case 1:
            return name, float(_reals([_one(fields, 2, b"\0" * 4)])[0])
        case 2:
            return name, _signed(_one(fields, 3, 0))
        case 3:
            return name, _text(_one(fields, 4, b""))
        case 4:
            return name, _tensor(_fields(_one(fields, 5, b"")))[1]
        case 6:
            return name, _reals(_all(fields, 7)).tolist()
        case 7:
            return name, _integers(_all(fields, 8))
        case 8:
            return name, [_text(value) for value in _all(fields, 9)]
    raise ProgramError(
        f"attribute {short(name)} of its ONNX model is a graph or of a kind that no part of the "
        f"host has"
    )


def _tensor(fields: Fields) -> tuple[str, npt.NDArray[Any]]:
    name = _text(_one(fields, 8, b""))
    if _one(fields, 14, 0) or _all(fields, 13):
        raise ProgramError(f"weight {short(name)} of its ONNX model is in another file")
    kind = TYPES.get(_one(fields, 2, 0))
    if kind is None:
        raise ProgramError(f"weight {short(name)} of its ONNX model is of no type that NumPy has")
    shape = tuple(_integers(_all(fields, 1)))
    dtype = np.dtype(kind)
    raw = _one(fields, 9, None)
    if raw is not None:
        array = np.frombuffer(raw, dtype.newbyteorder("<"))
    else:
        array = _typed(fields, dtype)
    if any(size < 0 for size in shape) or math.prod(shape) != array.size:
        raise ProgramError(
            f"weight {short(name)} of its ONNX model holds {array.size} numbers, and its shape is "
            f"{list(shape)}"
        )
    return name, array.reshape(shape)


def _typed(fields: Fields, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The numbers of a tensor that are no raw bytes."""
    if dtype == np.float32:
        return _reals(_all(fields, 4))
    if dtype == np.float64:
        return _reals(_all(fields, 10), "<f8")
    number = {np.dtype(np.int64): 7, np.dtype(np.uint32): 11, np.dtype(np.uint64): 11}
    integers = _integers(_all(fields, number.get(dtype, 5)))
    if dtype == np.float16:
        return np.array(integers, np.uint16).view(np.float16)
    return np.array(integers, np.int64).astype(dtype)


def operators(graph: Graph) -> Iterator[str]:
    """Names of the operators, as often as they come."""
    return (node.op_type for node in graph.nodes)
