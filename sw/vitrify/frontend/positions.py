"""Positions that depend on the query, added to scores, become a part of the attention.

Decomposed relative positions (MViTv2, SAM) are products of queries with tables, of as many channels
as a map of keys has lines or columns; spread over all keys, they are as large as the scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import array_of, attributes_of
from vitrify.ir.movement import NOTHING

from .layout import sizes
from .weighing import Emit, inputs_of, producer

#: Terms that an attention takes beside its products.
_TERMS = 2


@dataclass(frozen=True)
class _Term:
    """What is added to scores: ``value[rows][:, head, keys]``, in each head."""

    value: ir.Value
    rows: np.ndarray
    keys: np.ndarray


def relative_attention(node: ir.Node, again: Emit) -> ir.Value | None:
    """A product of values and the softmax of scores to which two such terms are added."""
    attributes = attributes_of(node)
    heads, softmax = attributes["heads"], producer(node.inputs[0], "Softmax")
    if softmax is None or attributes["layout"] != "nn" or attributes["scale"] != 1.0:
        return None
    if attributes_of(softmax) != {"axis": "channels", "groups": heads}:
        return None
    added = _added(inputs_of(softmax)[0])
    scores = [made for value in added if (made := producer(value, "Product")) is not None]
    others = [value for value in added if producer(value, "Product") is None]
    if len(scores) != 1 or len(others) != _TERMS:
        return None
    own = attributes_of(scores[0])
    if own["layout"] != "nt" or any(own[key] != attributes[key] for key in ("heads", "groups")):
        return None
    terms = [term for value in others if (term := _term(value, heads)) is not None]
    if len(terms) != _TERMS:
        return None
    q, k = inputs_of(scores[0])
    q, factor = _unscaled(q, [term.value for term in terms])
    first, second = (
        term.value if np.array_equal(term.rows, np.arange(len(term.rows)))
        else again("Rows", node, node, term.value, index=term.rows.tolist())
        for term in terms
    )
    return again(
        "RelativeAttention", node, scores[0], q, k, inputs_of(node)[1], first, second,
        heads=heads, groups=attributes["groups"], scale=factor * own["scale"],
        x_keys=terms[0].keys.tolist(), y_keys=terms[1].keys.tolist(),
    )


def _unscaled(q: ir.Value, terms: list[ir.Value]) -> tuple[ir.Value, float]:
    """What the terms are made of and a factor, if ``q`` is that, scaled; else ``q`` and one."""
    for term in terms:
        made = term.producer()
        if made is None or made.op_type != "Product":
            continue
        x = inputs_of(made)[0]
        while (moved := x.producer()) is not None and moved.op_type == "Rows":
            x = inputs_of(moved)[0]
        factor = 1.0 if x is q else _ratio(q, x)
        if factor is not None:
            return x, factor
    return q, 1.0


def _ratio(value: ir.Value, other: ir.Value) -> float | None:
    """The factor between two tensors that are the same but for one; ``None`` if they are not."""
    node, its = value.producer(), other.producer()
    if node is None or its is None:
        return None
    if node.op_type == "Affine" and inputs_of(node)[0] is other:
        scale, shift = map(array_of, inputs_of(node)[1:])
        return float(scale.item()) if scale.size == 1 and not shift.any() else None
    alike = node.op_type == its.op_type and node.op_type in ("Linear", "LayerNorm")
    if not alike or node.inputs[0] is not its.inputs[0]:
        return None
    if attributes_of(node) != attributes_of(its):
        return None
    each, others = (
        np.concatenate([array_of(parameter).ravel() for parameter in inputs_of(one)[1:]])
        for one in (node, its)
    )
    if each.shape != others.shape or not others.any():
        return None
    largest = np.abs(others).argmax()
    factor = float(each[largest]) / float(others[largest])
    return factor if np.allclose(each, factor * others, 1e-5, 0.0) else None


def _added(value: ir.Value) -> list[ir.Value]:
    """What ``value`` is a sum of."""
    node = producer(value, "Add")
    return [value] if node is None else [part for x in inputs_of(node) for part in _added(x)]


def _term(value: ir.Value, heads: int) -> _Term | None:
    """The tensor whose channels ``value`` spreads over the keys, the same in all heads."""
    rows, columns = (np.arange(size) for size in sizes(value))
    spread = False
    while (node := producer(value, "Rows", "Channels")) is not None:
        index = np.asarray(attributes_of(node)["index"])
        if (index == NOTHING).any():
            return None
        if node.op_type == "Rows":
            rows = index[rows]
        else:
            columns, spread = index[columns], True
        value = inputs_of(node)[0]
    width = sizes(value)[1]
    if not spread or width % heads or len(value.shape or ()) != 3:
        return None
    keys = columns.reshape(heads, -1) - np.arange(heads)[:, None] * (width // heads)
    same = (keys == keys[:1]).all() and keys.min() >= 0 and keys.max() < width // heads
    return _Term(value, rows, keys[0]) if same else None
