"""Tensors one behind the other, or side by side: sums of what has zeros in the others' places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.arch import formats
from vitrify.ir import shape_of
from vitrify.ops.linear.plan import Affine, LinearValue, Stored, affine_of
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import Request
from vitrify.quant.graph import QConstant
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.plan import Array, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, parameter, result_of
from vitrify.quant.tensors import QTensor
from vitrify.quant.windows import Window


@dataclass(frozen=True, kw_only=True)
class ConstantOp(PlanOp):
    """Constant rows, version 0 of a stream."""

    rows: Array

    def reads(self) -> list[tuple[str, int]]:
        return []

    def channels(self, plan: Plan) -> int:
        return self.rows.shape[1]

    def requests(self, plan: Plan) -> list[Request]:
        return [self.result()] if self.value and self.out in plan.outputs.values() else []


def assemble(a: Assembler, op: ConstantOp) -> None:
    """The initial value of the stream."""
    if op.out not in a.steps:
        raise unsupported(op.value or op.name, "nothing reads its constant rows")
    step, (count, dim) = a.steps[op.out], op.rows.shape
    if a.statistics(op.out, op.version, dim) is not None:
        raise unsupported(op.value or op.name, "a LayerNorm reads rows that are constant")
    value = np.clip(np.rint(op.rows / step), -INT16_MAX - 1, INT16_MAX).astype(np.int16)
    a.graph.tensors[op.out] = QTensor(op.out, count, dim, formats.RESIDUAL_BITS, step)
    a.graph.constants.append(QConstant(op.out, value))


def constant(planner: Planner, node: ir.Node, rows: Array, value: str = "") -> Operand:
    """A stream that begins with constant rows; ``value`` names them in the float graph."""
    name = planner.unique(f"{result_of(node)}.rows")
    planner.versions[name] = 0
    planner.append(ConstantOp(name=name, out=name, value=value, rows=rows))
    return Operand(name, value, 0)


def shifted(planner: Planner, node: ir.Node, index: int, before: int, behind: int) -> Affine:
    """An input with so many rows of zeros before and behind it."""
    x = planner.of(node, index).int8(planner, node)
    rows, dim = (int(size) for size in shape_of(_input(node, index))[1:])
    window = Window((rows, 1), (1, 1), pads=(before, 0, behind, 0))
    name = planner.unique(f"{result_of(node)}.part")
    return Affine(
        x, np.eye(dim), np.zeros(dim), name, "", identity=True, window=window
    )


def plan_constant_rows(planner: Planner, node: ir.Node) -> Stored:
    """``ConstantRows``: the beginning of a stream."""
    return Stored(constant(planner, node, parameter(node, 1), result_of(node)))


def plan_concat_rows(planner: Planner, node: ir.Node) -> LinearValue:
    """``ConcatRows``: the first, and behind it zeros to which the second is added."""
    first, second = (int(shape_of(_input(node, i))[1]) for i in range(2))
    above, below = shifted(planner, node, 0, 0, second), shifted(planner, node, 1, first, 0)
    return _sum(planner, node, above, below)


def plan_concat_channels(planner: Planner, node: ir.Node) -> LinearValue:
    """``ConcatChannels``: linear maps with zeros for the channels of the other."""
    x, y = affine_of(planner, node, 0), affine_of(planner, node, 1)
    before, behind = x.weight.shape[-2], y.weight.shape[-2]
    return _sum(planner, node, _wider(planner, node, x, 0, behind), _wider(
        planner, node, y, before, 0
    ))


def _wider(planner: Planner, node: ir.Node, x: Affine, before: int, behind: int) -> Affine:
    if x.task is not None or (x.window is not None and x.window.groups > 1):
        x = Stored(x.int8(planner, node)).affine(planner, node)
    return replace(
        x, weight=np.pad(x.weight, ((before, behind), (0, 0))), value="", name=x.name or "part",
        bias=np.pad(x.bias, (before, behind)), rows=None,
    )


def _sum(planner: Planner, node: ir.Node, x: Affine, y: Affine) -> Stored:
    """The stream that begins with ``x``, and that ``y`` is added to."""
    stream = x.new_stream(planner)
    return Stored(y.add_to(planner, node, stream, result_of(node)))


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
