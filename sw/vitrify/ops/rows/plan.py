"""Some rows of a tensor in the plan, in any order: of what reads them, no op of their own.

Whatever maps row by row (a normalisation, a linear layer, an activation) may as well read the rows
in the order in which its result is wanted.  So permutations into windows and back, shifts, grids
and single tokens cost nothing but a list in the row-index memory.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of
from vitrify.quant.planner import Planner, Value, result_of
from vitrify.quant.tensors import Rows

from .decompose import framed
from .joined import shifted


def plan_select_token(planner: Planner, node: ir.Node) -> Value:
    """``SelectToken``: whoever reads the tensor reads one row of it."""
    rows = Rows.span(attributes_of(node)["index"], 1)
    return planner.of(node, 0).pick(planner, node, rows)


def plan_rows(planner: Planner, node: ir.Node) -> Value:
    """``Rows``: whoever reads the tensor reads these rows of it.

    Rows of zeros before or behind all others are what a window reads outside of its map.
    """
    index, x = np.asarray(attributes_of(node)["index"]), node.inputs[0]
    assert x is not None
    count = int(shape_of(x)[1])
    zeros = framed(index, count)
    if zeros is not None:
        return shifted(planner, node, planner.of(node, 0), count, *zeros, result_of(node))
    return planner.of(node, 0).pick(planner, node, Rows(tuple(index.tolist())))


def plan_unfold(planner: Planner, node: ir.Node) -> Value:
    """``Unfold`` to one part: the same rows."""
    return planner.of(node, 0)
