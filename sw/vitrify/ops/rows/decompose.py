"""Rows between zeros, and the parts of a row as rows, by other operations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import Builder, attributes_of, shape_of
from vitrify.ir.movement import NOTHING
from vitrify.quant.decompose import inputs


def decompose_rows(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Rows`` with zeros between others: one row of zeros behind all, then rows in any order."""
    (x,), index = inputs(node), np.asarray(attributes_of(node)["index"])
    count = int(shape_of(x)[1])
    inside = np.flatnonzero(index != NOTHING)
    if len(inside) == len(index) or framed(index, count) is not None:
        return None
    wide = builder.emit("Rows", x, index=[*range(count), NOTHING])
    return builder.emit("Rows", wide, index=np.where(index == NOTHING, count, index).tolist())


def framed(index: np.ndarray, count: int) -> tuple[int, int] | None:
    """How many zeros are before and behind all ``count`` rows, if nothing else is done to them."""
    inside = np.flatnonzero(index != NOTHING)
    if not np.array_equal(index[inside], np.arange(count)) or len(index) == count:
        return None
    first = int(inside[0])
    together = inside[-1] - first == count - 1
    return (first, len(index) - count - first) if together else None


def decompose_unfold(builder: Builder, node: ir.Node) -> ir.Value | None:
    """``Unfold``: all first parts, behind them all second ones, and so on; then row by row."""
    (x,), parts = inputs(node), attributes_of(node)["parts"]
    if parts == 1:
        return None
    if len(shape_of(x)) == 2:
        x = builder.emit("Unfold", x, parts=1)
    rows, width = int(shape_of(x)[1]), int(shape_of(x)[2]) // parts
    made = [
        builder.emit("Channels", x, index=list(range(part * width, (part + 1) * width)))
        for part in range(parts)
    ]
    behind = made[0]
    for part in made[1:]:
        behind = builder.emit("ConcatRows", behind, part)
    return builder.emit(
        "Rows", behind, index=np.arange(rows * parts).reshape(parts, rows).T.reshape(-1).tolist()
    )
