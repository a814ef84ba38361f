"""Damage: of bytes, of plain data, of ONNX graphs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: What takes the place of a value in plain data.
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 65535, 65536,
    2**31 - 1, 2**31, 2**32, 2**40, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e-300, 1e300, 1e38,
    "", "x", "nano", "/etc/passwd", "../x", "a\x1b[2Jb", "\ud800", "x" * 300, [], {}, [[]], [0],
    [1, 2, 3], {"x": 1}, [None] * 4, "[/]", "none", "imagenet", "1" * 400,
]
_SIZES = [0, 1, 2, 3, 5, 7, 8, 16, 17, 64, 255, 1000, 65536, 2**31, -1]


def content(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes flipped, overwritten, removed, repeated, moved, or cut off."""
    array = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not array:
            break
        at = int(rng.integers(len(array)))
        size = int(rng.integers(1, 1 + min(64, len(array))))
        match int(rng.integers(7)):
            case 0:
                array[at] ^= 1 << int(rng.integers(8))
            case 1:
                array[at : at + size] = rng.bytes(len(array[at : at + size]))
            case 2:
                del array[at : at + size]
            case 3:
                array[at:at] = array[at : at + size] * int(rng.integers(1, 5))
            case 4:
                array[at : at + 8] = int(rng.integers(2**63)).to_bytes(8, "little")
            case 5:
                array[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case _:
                del array[at:]
    return bytes(array)


def plain(rng: np.random.Generator, data: Any) -> Any:
    """A copy of nested lists and dictionaries with some leaves replaced, added or removed."""
    data = copy.deepcopy(data)
    for _ in range(int(rng.integers(1, 4))):
        place, key = _leaf(rng, data)
        odd = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
        value = place[key]
        match int(rng.integers(5)):
            case 0 if isinstance(value, int) and not isinstance(value, bool):
                place[key] = value + int(rng.integers(-3, 4))
            case 1 if isinstance(place, dict):
                del place[key]
            case 2 if isinstance(place, dict):
                place[f"extra{rng.integers(9)}"] = odd
            case 3 if isinstance(place, list):
                place.append(copy.deepcopy(value))
            case _:
                place[key] = odd
    return data


def _leaf(rng: np.random.Generator, data: Any) -> tuple[Any, Any]:
    """A container and a key in it, at a random depth."""
    place, key = data, rng.choice(list(data))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
        place = place[key]
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = keys[int(rng.integers(len(keys)))]
    return place, key


def graph(rng: np.random.Generator, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with a few changes to its structure."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for _ in range(int(rng.integers(1, 4))):
        _CHANGES[int(rng.integers(len(_CHANGES)))](rng, changed)
    return changed


def _pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))] if len(items) else None


def _names(model: onnx.ModelProto) -> list[str]:
    graph_ = model.graph
    return [name for node in graph_.node for name in node.output] + [
        item.name for part in (graph_.initializer, graph_.input) for item in part
    ]


def _drop_node(rng, model):
    if model.graph.node:
        del model.graph.node[int(rng.integers(len(model.graph.node)))]


def _repeat_node(rng, model):
    if model.graph.node:
        model.graph.node.append(_pick(rng, model.graph.node))


def _rewire(rng, model):
    node = _pick(rng, model.graph.node)
    if node is not None and node.input:
        node.input[int(rng.integers(len(node.input)))] = _pick(rng, [*_names(model), "", "nowhere"])


def _swap_inputs(rng, model):
    node = _pick(rng, model.graph.node)
    if node is not None:
        order = list(node.input)
        rng.shuffle(order)
        del node.input[:]
        node.input.extend(order)


def _fewer_inputs(rng, model):
    node = _pick(rng, model.graph.node)
    if node is not None and node.input:
        del node.input[-1]


def _operator(rng, model):
    node, other = _pick(rng, model.graph.node), _pick(rng, model.graph.node)
    if node is not None:
        node.op_type = _pick(rng, [
            other.op_type, "Add", "MatMul", "Softmax", "Reshape", "Transpose", "Cast", "Loop", "If",
            "Gather", "NonZero", "TopK", "Identity", "Einsum", "Slice", "Clip", "Nothing", "",
        ])
        node.domain = _pick(rng, ["", "", "", "com.microsoft", "odd\x1b"])


def _attribute(rng, model):
    node = _pick(rng, model.graph.node)
    if node is None:
        return
    name = node.attribute[0].name if node.attribute and rng.random() < 0.7 else "axis"
    kept = [a for a in node.attribute if a.name != name]
    value = _pick(rng, [
        0, 1, -1, 7, 2**40, -(2**62), 0.5, 1e30, float("nan"), "text", [0], [0, 1], [0, 1, 2, 3],
        [2, 1, 0], [2**31] * 4, [0.5, 1.0],
    ])
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _initializer(rng, model):
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return
    match int(rng.integers(6)):
        case 0:
            tensor.dims[:] = [int(_pick(rng, _SIZES)) for _ in tensor.dims]
        case 1:
            tensor.data_type = int(rng.integers(24))
        case 2:
            tensor.raw_data = content(rng, tensor.raw_data)
        case 3:
            values = numpy_helper.to_array(tensor).copy()
            if values.size and values.dtype.kind == "f":
                odd = [np.nan, np.inf, 3e38, 1e-40, 0, -1e20]
                values.flat[int(rng.integers(values.size))] = _pick(rng, odd)
            elif values.size and values.dtype.kind == "i":
                values.flat[int(rng.integers(values.size))] = _pick(rng, _SIZES)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        case 4:
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", _pick(rng, ["/etc/passwd", "../x", "gone", ""])
        case _:
            tensor.dims.append(1)


def _shape(rng, model):
    value = _pick(rng, [*model.graph.input, *model.graph.output, *model.graph.value_info])
    if value is None:
        return
    dims = value.type.tensor_type.shape.dim
    if dims and rng.random() < 0.8:
        dim = dims[int(rng.integers(len(dims)))]
        if rng.random() < 0.3:
            dim.dim_param = _pick(rng, ["N", "", "[/]", "batch size"])
        else:
            dim.dim_value = int(_pick(rng, _SIZES))
    else:
        value.type.tensor_type.elem_type = int(rng.integers(24))


def _output(rng, model):
    outputs = model.graph.output
    if outputs and rng.random() < 0.5:
        _pick(rng, outputs).name = _pick(rng, [*_names(model), "gone", "", "[/]"])
    else:
        name = _pick(rng, _names(model))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _opset(rng, model):
    model.opset_import[0].version = int(_pick(rng, [0, 1, 6, 9, 11, 12, 13, 17, 21, 24, 99, -1]))


def _rename(rng, model):
    node = _pick(rng, model.graph.node)
    if node is not None and node.output:
        node.output[0] = _pick(rng, [*_names(model), ""])


def _order(rng, model):
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


_CHANGES = (
    _drop_node, _repeat_node, _rewire, _rewire, _swap_inputs, _fewer_inputs, _operator, _operator,
    _attribute, _attribute, _initializer, _initializer, _shape, _output, _opset, _rename, _order,
)
