"""Activations in the plan: a table behind a linear map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from vitrify.ir import attributes_of
from vitrify.ops.linear.plan import Affine, LinearValue, Stored, affine_of, picked
from vitrify.ops.product.values import ProductValue
from vitrify.quant.plan import Operand
from vitrify.quant.planner import Planner, result_of
from vitrify.quant.tensors import Rows


@dataclass(frozen=True)
class Unary(LinearValue):
    """Activation of a linear map, not computed yet."""

    x: Affine
    kind: str
    value: str

    def affine(self, planner: Planner, node: ir.Node) -> Affine:
        """A copy of the computed int8 tensor."""
        return Stored(self.int8(planner, node)).affine(planner, node)

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        return self.x.activated(planner, self.value, self.kind)

    def own_int8(
        self, planner: Planner, node: ir.Node, form: str, rows: Rows | None = None
    ) -> Operand:
        if rows is None:
            return self.x.activated(planner, self.value, self.kind, form)
        if self.x.window is not None:
            return Stored(self.int8(planner, node)).own_int8(planner, node, form, rows)
        x = self.x.at_rows(planner, node, rows)
        return x.activated(planner, "", self.kind, form)

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> LinearValue:
        before = self.x
        if before.window is not None:
            return Stored(self.int8(planner, node)).pick(planner, node, rows)
        chosen = before.rows.then(rows) if before.rows else rows
        before = replace(before, x=picked(before.x, rows), rows=chosen)
        return Unary(before, self.kind, result_of(node))


def plan_activation(planner: Planner, node: ir.Node) -> LinearValue:
    """``Activation``: of the linear map or product in front, or of a copy."""
    value = planner.of(node, 0)
    kind, name = attributes_of(node)["kind"], result_of(node)
    made = value.function(kind, name) if isinstance(value, ProductValue) else None
    return made or Unary(affine_of(planner, node, 0), kind, name)
