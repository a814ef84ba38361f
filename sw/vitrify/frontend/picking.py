"""Some channels of a product of activations are products with some channels.

Where a model computes things of different size side by side (a product, and beside it the sum that
divides it), each becomes a tensor of its own, with a step of its own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of, attributes_of
from vitrify.ir.movement import NOTHING

from .layout import sizes
from .weighing import Emit, inputs_of, producer


def channels_of_product(node: ir.Node, again: Emit) -> ir.Value | None:
    """``Channels`` of a product, or of a function of it, that nothing reads as a whole."""
    index = np.asarray(attributes_of(node)["index"])
    value, function = node.inputs[0], producer(node.inputs[0], "Activation")
    value = value if function is None else function.inputs[0]
    made = None if value is None else value.producer()
    if value is None or made is None or made.op_type != "Product":
        return None
    attributes, width = attributes_of(made), sizes(value)[1]
    own = _of_each(index, attributes["heads"], width)
    if attributes["layout"] == "nt" or own is None or not _only_parts(value):
        return None
    picked = _pick(value, index, again, node)
    if function is None:
        return picked
    return again("Activation", function, node, picked, **attributes_of(function))


def _only_parts(value: ir.Value) -> bool:
    """Whether all that read it, or functions of it, are choices of channels."""
    if value.is_graph_output():
        return False
    for user in (use.node for use in value.uses()):
        if user.op_type == "Activation":
            if not _only_parts(user.outputs[0]):
                return False
        elif user.op_type != "Channels":
            return False
    return True


def _of_each(index: np.ndarray, count: int, width: int) -> np.ndarray | None:
    """Channels of each of ``count`` equal parts of a row, if all give the same of theirs."""
    size = width // count
    if len(index) % count or (index == NOTHING).any():
        return None
    parts = index.reshape(count, -1) - np.arange(count)[:, None] * size
    same = (parts == parts[:1]).all() and parts.min() >= 0 and parts.max() < size
    return parts[0] if same and parts.shape[1] < size else None


def _pick(value: ir.Value, index: np.ndarray, again: Emit, node: ir.Node) -> ir.Value:
    """``value[..., index]``, from what it is made of as far as that goes."""
    made = value.producer()
    if made is None:
        return again("Channels", node, node, value, index=index.tolist())
    attributes, operands = attributes_of(made), inputs_of(made)
    x, width = operands[0], sizes(value)[1]
    match made.op_type:
        case "Product" if attributes["layout"] != "nt":
            if _of_each(index, attributes["heads"], width) is not None:
                y = _pick(operands[1], index, again, node)
                return again("Product", made, node, x, y, **attributes)
        case "Fold":
            own = _of_each(index, attributes["rows"], width)
            if own is not None:
                return again("Fold", made, node, _pick(x, own, again, node), **attributes)
        case "Unfold" if (index != NOTHING).all():
            every = (np.arange(attributes["parts"])[:, None] * width + index).ravel()
            return again("Unfold", made, node, _pick(x, every, again, node), **attributes)
        case "Rows":
            return again("Rows", made, node, _pick(x, index, again, node), **attributes)
        case "Channels":
            before = np.asarray(attributes["index"])
            return _pick(x, np.where(index == NOTHING, NOTHING, before[index]), again, node)
        case "Affine" if (index != NOTHING).all():
            scale, shift = (
                np.broadcast_to(part, (len(part), width))[:, index]
                for part in map(array_of, operands[1:])
            )
            nothing = _nothing(x, index)
            if nothing is not None:
                rows = np.broadcast_to(shift, (sizes(value)[0], len(index)))
                return again("ConstantRows", made, node, nothing, rows)
            return again("Affine", made, node, _pick(x, index, again, node), scale, shift)
        case _:
            pass
    return again("Channels", node, made, value, index=index.tolist())


def _nothing(value: ir.Value, index: np.ndarray) -> ir.Value | None:
    """The tensor that these channels, zeros whatever the image, are taken of; else ``None``."""
    made = value.producer()
    if made is None or made.op_type not in ("Channels", "Rows", "Unfold"):
        return None
    attributes, x = attributes_of(made), inputs_of(made)[0]
    if made.op_type == "Channels":
        return x if (np.asarray(attributes["index"])[index] == NOTHING).all() else None
    if made.op_type == "Unfold":
        index = (np.arange(attributes["parts"])[:, None] * sizes(value)[1] + index).ravel()
    return _nothing(x, index)
