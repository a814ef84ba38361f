"""Rotary position embedding in the plan.

``x * cos + x[partner] * sin`` is ``[x | x[partner]] * [cos | sin]``, and then the sum of both
halves.  The linear map that makes ``x`` makes its partners, too; its bytes lie beside constant ones
as the planes of a pair; what reads the product begins with the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Affine, LinearOp, Stored, affine_of
from vitrify.ops.rows.joined import ConstantOp
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Array, Operand, Plan
from vitrify.quant.planner import Planner, parameter, result_of


@dataclass(frozen=True, kw_only=True)
class BothOp(LinearOp):
    """A linear map to int8, channels ``order`` of the float tensor ``before``."""

    order: Array

    def requests(self, plan: Plan) -> list[Request]:
        return [*self.x.requests(), Request(self.before, self.rows)]


@dataclass(frozen=True, kw_only=True)
class AnglesOp(ConstantOp):
    """Constant rows of an int8 tensor."""


def plan_rotary(planner: Planner, node: ir.Node) -> Affine:
    """``Rotary``: the sum is delayed."""
    x, name = affine_of(planner, node, 0), result_of(node)
    if x.task is not None or x.window is not None:
        x = Stored(x.int8(planner, node)).affine(planner, node)
    partner = np.asarray(attributes_of(node)["partner"])
    dim = len(partner)
    order = np.concatenate([np.arange(dim), partner])
    low, high = planner.unique(f"{name}.both"), planner.unique(f"{name}.angles")
    planner.append(AnglesOp(
        name=high, out=high, value="", rows=np.hstack([parameter(node, 1), parameter(node, 2)])
    ))
    planner.append(BothOp(
        name=x.name, out=low, value="", x=x.x, weight=x.weight[order],
        bias=x.bias[order], role="int8", before=x.value, rows=x.rows, order=order,
    ), "both")
    return Affine(
        Operand(low, "", times=high), np.hstack([np.eye(dim)] * 2), np.zeros(dim),
        node.name or name, name, identity=True,
    )
