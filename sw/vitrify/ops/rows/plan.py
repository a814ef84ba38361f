"""Some rows of a tensor in the plan, in any order: of what reads them, no op of their own.

Whatever maps row by row (a normalisation, a linear layer, an activation) may as well read the rows
in the order in which its result is wanted.  So permutations into windows and back, shifts, grids
and single tokens cost nothing but a list in the row-index memory.
"""

from __future__ import annotations

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ir.movement import NOTHING
from vitrify.quant.plan import unsupported
from vitrify.quant.planner import Planner, Value
from vitrify.quant.tensors import Rows


def plan_select_token(planner: Planner, node: ir.Node) -> Value:
    """``SelectToken``: whoever reads the tensor reads one row of it."""
    rows = Rows.span(attributes_of(node)["index"], 1)
    return planner.of(node, 0).pick(planner, node, rows)


def plan_rows(planner: Planner, node: ir.Node) -> Value:
    """``Rows``: whoever reads the tensor reads these rows of it."""
    index = tuple(int(i) for i in attributes_of(node)["index"])
    if NOTHING in index:
        raise unsupported(node, "it puts rows of zeros between others")
    return planner.of(node, 0).pick(planner, node, Rows(index))
