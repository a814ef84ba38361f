"""Canonical graphs with fewer operations: what weights and neighbours can take goes there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, array_of, attach_functions, attributes_of, source_of

from .fold import emit, hints_of
from .layout import sizes
from .picking import channels_of_product
from .positions import relative_attention
from .weighing import (
    Emit,
    attention_of,
    inputs_of,
    producer,
    product_of_affine,
    product_of_scaled,
    product_of_weighted,
    sum_of_weights,
)


def _mix_parts(node: ir.Node) -> tuple[ir.Value, np.ndarray, np.ndarray, dict[str, Any]]:
    x, matrix, bias = inputs_of(node)
    return x, array_of(matrix), array_of(bias), attributes_of(node)


def _shift_of_mix(node: ir.Node, again: Emit) -> ir.Value | None:
    """A number for each row behind a matrix over tokens is its bias."""
    mixed = producer(node.inputs[0], "Mix")
    if mixed is None:
        return None
    x, matrix, bias, attributes = _mix_parts(mixed)
    if node.op_type == "Tokens":
        prefix, shift = (array_of(value) for value in inputs_of(node)[1:])
        scale = np.ones((1, 1))
        if len(prefix):
            return None
    else:
        scale, shift = (array_of(value) for value in inputs_of(node)[1:])
    rows = len(bias) * attributes["groups"]
    parts = []
    for part in (scale, shift):
        full = np.broadcast_to(part, (rows, part.shape[1]))
        apart = full.reshape(attributes["groups"], len(bias), -1)
        if not (apart == apart[:1, :, :1]).all():
            return None
        parts.append(apart[0, :, 0])
    factor, offset = parts
    matrix, bias = matrix * factor[:, None], bias * factor + offset
    return again("Mix", mixed, node, x, matrix, bias, **attributes)


def _mix_of_affine(node: ir.Node, again: Emit) -> ir.Value | None:
    """A scale and a shift for each row before a matrix over tokens go into it."""
    affine = producer(node.inputs[0], "Affine")
    if affine is None:
        return None
    _, matrix, bias, attributes = _mix_parts(node)
    x, *parameters = inputs_of(affine)
    count = matrix.shape[2]
    parts = []
    for parameter in parameters:
        array = array_of(parameter)
        if array.shape[1] != 1:
            return None
        full = np.broadcast_to(array, (count * attributes["groups"], 1)).reshape(-1, count)
        if not (full == full[:1]).all():
            return None
        parts.append(full[0])
    scale, shift = parts
    offsets = matrix @ shift
    if not (offsets == offsets[:1]).all():
        return None
    return again("Mix", node, affine, x, matrix * scale, bias + offsets[0], **attributes)


def _linear_of_affine(node: ir.Node, again: Emit) -> ir.Value | None:
    """A scale and a shift for each channel before a linear layer go into it."""
    affine = producer(node.inputs[0], "Affine")
    if affine is None:
        return None
    x, scale, shift = inputs_of(affine)
    if len(array_of(scale)) > 1 or len(array_of(shift)) > 1:
        return None
    weight, bias = (array_of(value) for value in inputs_of(node)[1:])
    offset = np.broadcast_to(array_of(shift)[0], weight.shape[1])
    return again("Linear", node, affine, x, weight * array_of(scale)[0], bias + weight @ offset)


def _linear_of_parts(node: ir.Node, again: Emit) -> ir.Value | None:
    """A linear layer of channels side by side is the sum of two."""
    joined = producer(node.inputs[0], "ConcatChannels")
    if joined is None:
        return None
    x, y = inputs_of(joined)
    weight, bias = (array_of(value) for value in inputs_of(node)[1:])
    width = sizes(x)[1]
    first = again("Linear", node, joined, x, weight[:, :width], bias)
    second = again("Linear", node, joined, y, weight[:, width:], np.zeros(len(weight)))
    return again("Add", node, joined, first, second)


#: What the core makes as bytes, or reads normalised from a tensor that is there.
_IN_BYTES = (
    "Attention", "CrossAttention", "RelativeAttention", "LayerNorm", "RMSNorm", "HeadNorm",
)


def _linear_of_sum(node: ir.Node, again: Emit) -> ir.Value | None:
    """A linear layer of a sum of bytes is the sum of two: the sum would be a tensor of 16 bits.

    That takes two copies to make, each as many multiplications as such a layer at least.
    """
    summed = producer(node.inputs[0], "Add")
    if summed is None:
        return None
    x, y = inputs_of(summed)
    weight, bias = (array_of(value) for value in inputs_of(node)[1:])
    made = [value.producer() for value in (x, y)]
    if any(each is None or each.op_type not in _IN_BYTES for each in made):
        return None
    if len(weight) > weight.shape[1]:
        return None
    first = again("Linear", node, summed, x, weight, bias)
    second = again("Linear", node, summed, y, weight, np.zeros(len(weight)))
    return again("Add", node, summed, first, second)


def _token_of_rows(node: ir.Node, again: Emit) -> ir.Value | None:
    """One token of rows that were moved, joined or made of one row."""
    moved = producer(node.inputs[0], "Rows", "ConcatRows", "Unfold")
    if moved is None:
        return None
    index = attributes_of(node)["index"]
    operands, attributes = inputs_of(moved), attributes_of(moved)
    if moved.op_type == "Rows":
        place = attributes["index"][index]
        return None if place < 0 else again("SelectToken", node, moved, *operands, index=place)
    if moved.op_type == "ConcatRows":
        count = sizes(operands[0])[0]
        number = index if index < count else index - count
        chosen = operands[0 if index < count else 1]
        return again("SelectToken", node, moved, chosen, index=number)
    x = operands[0]
    return x if attributes["parts"] == 1 and len(x.shape or ()) == 2 else None


def _sum_of_branches(node: ir.Node, again: Emit) -> ir.Value | None:
    """A stream plus the sum of two branches: one branch after the other."""
    for place in range(2):
        inner = producer(node.inputs[place], "Add")
        stream = node.inputs[1 - place]
        if inner is None or stream is None or len(stream.uses()) < 2:
            continue
        branches = inputs_of(inner)
        linear = [
            (made := value.producer()) is not None and made.op_type == "Linear"
            for value in branches
        ]
        if all(linear) and not all(value is branches[0] for value in branches):
            first = again("Add", inner, inner, stream, branches[0])
            return again("Add", node, node, first, branches[1])
    return None


_RULES: dict[str, tuple[Callable[[ir.Node, Emit], ir.Value | None], ...]] = {
    "Tokens": (_shift_of_mix,),
    "Affine": (_shift_of_mix,),
    "Mix": (_mix_of_affine, product_of_weighted),
    "Linear": (_linear_of_affine, _linear_of_parts, _linear_of_sum),
    "SelectToken": (_token_of_rows,),
    "Add": (_sum_of_branches,),
    "Channels": (channels_of_product,),
    "Multiply": (sum_of_weights,),
    "Product": (attention_of, relative_attention, product_of_affine, product_of_scaled),
}


def simplify(model: ir.Model) -> None:
    """Apply the rules until none fits, in place; every node must be used."""
    builder = Builder.of(model.graph)

    def again(
        op_type: str, named: ir.Node, taken: ir.Node, *operands: ir.Value | np.ndarray, **more: Any
    ) -> ir.Value:
        """Emit an operation called after one node, and then after another that it has taken in."""
        hints = (*hints_of(named.outputs[0]), *hints_of(taken.outputs[0]))
        source = source_of(named)
        return emit(builder, op_type, *operands, source=source, hints=hints, **more)

    pending = list(model.graph)
    while pending:
        node = pending.pop(0)
        for rule in _RULES.get(node.op_type, ()):
            builder.before = node
            made = rule(node, again)
            if made is None:
                continue
            _replace(model, node, made)
            fresh = made.producer()
            if fresh is not None:
                pending.insert(0, fresh)
            break
    attach_functions(model)


def _replace(model: ir.Model, node: ir.Node, made: ir.Value) -> None:
    """Let ``made`` stand for the result of ``node``, and drop what nothing reads any more."""
    output = node.outputs[0]
    for place, value in enumerate(model.graph.outputs):
        if value is output:
            made.name = output.name
            model.graph.outputs[place] = made
    ir.convenience.replace_all_uses_with(output, made)
    dead = [node]
    while dead:
        gone = dead.pop()
        if gone.graph is None or gone.outputs[0].uses() or gone.outputs[0].is_graph_output():
            continue
        operands = inputs_of(gone)
        model.graph.remove(gone, safe=True)
        behind = map(ir.Value.producer, operands)
        dead.extend(each for each in behind if each is not None)
