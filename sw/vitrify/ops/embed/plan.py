"""The patch embedding in the plan, with the constant tokens and positions behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import attributes_of, shape_of
from vitrify.ops.linear.late import LateStream
from vitrify.ops.linear.plan import Stored, affine_of
from vitrify.ops.rows.joined import constant, shifted
from vitrify.quant.calibrate import Request
from vitrify.quant.plan import Array, ImageRows, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, parameter, result_of

from .pixels import another_embedding


@dataclass(frozen=True, kw_only=True)
class PatchOp(PlanOp):
    """Patch embedding and tokens: constant plus matrix product, version 0 of the stream."""

    patch: tuple[int, int]
    weight: Array
    bias: Array
    prefix: Array
    position: Array

    def reads(self) -> list[tuple[str, int]]:
        return []

    def channels(self, plan: Plan) -> int:
        return len(self.weight)

    def requests(self, plan: Plan) -> list[Request]:
        return [self.result()] if self.out in plan.outputs.values() else []


@dataclass(frozen=True)
class Patch(LateStream):
    """Patch embedding that waits for its positions."""

    def make(self, planner: Planner) -> Operand:
        """Without positions, if nothing has added them so far."""
        count, dim = (int(size) for size in shape_of(self.node.outputs[0])[1:])
        name = result_of(self.node)
        return self.embed(planner, name, np.zeros((0, dim)), np.zeros((count, dim)))

    def embed(self, planner: Planner, value: str, prefix: Array, position: Array) -> Operand:
        """Compute it behind ``prefix`` tokens, with ``position`` of all tokens added."""
        patch = tuple(attributes_of(self.node)["patch"])
        before = (op for op in planner.plan.ops if isinstance(op, PatchOp))
        if any(len(op.prefix) != len(prefix) for op in before):
            raise unsupported(
                self.node, "its patches are read as they are and behind tokens of their own, and "
                "the core has one layout of the image's rows"
            )
        planner.versions[value] = 0
        planner.plan.rows = ImageRows(patch, len(prefix))
        planner.append(PatchOp(
            name=self.node.name or value, out=value, value=value, patch=patch,
            weight=parameter(self.node, 1), bias=parameter(self.node, 2), prefix=prefix,
            position=position,
        ))
        return Operand(value, value, 0)


def plan_patch_embed(planner: Planner, node: ir.Node) -> Patch:
    """``PatchEmbed``: delayed until it is known what is added to it."""
    if planner.plan.rows is not None:
        raise another_embedding(planner, node)
    # Its prefix is known later.
    planner.plan.rows = ImageRows(tuple(attributes_of(node)["patch"]), 0)
    return Patch(node)


def plan_tokens(planner: Planner, node: ir.Node) -> Stored:
    """``Tokens``: initial values of the stream that the embedding adds to."""
    x, prefix, position = planner.of(node, 0), parameter(node, 1), parameter(node, 2)
    if isinstance(x, Patch):
        return Stored(x.embed(planner, result_of(node), prefix, position))
    value = position.copy()
    value[: len(prefix)] += prefix
    behind = (
        shifted(planner, node, x, len(position) - len(prefix), len(prefix), 0)
        if len(prefix) else affine_of(planner, node, 0)
    )
    stream = constant(planner, node, value)
    return Stored(behind.add_to(planner, node, stream, result_of(node)))
