"""Tensors one behind the other, or side by side: sums of what has zeros in the others' places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vitrify.arch import formats
from vitrify.ir import shape_of
from vitrify.ops.linear.late import LateStream
from vitrify.ops.linear.plan import Affine, Stored, affine_of
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import Request
from vitrify.quant.graph import QConstant
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.plan import Array, Operand, Plan, PlanOp, unsupported
from vitrify.quant.planner import Planner, Value, parameter, result_of
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


@dataclass(frozen=True)
class Joined(LateStream):
    """Values one behind the other, each with its number of rows."""

    parts: tuple[tuple[Value, int], ...]

    def make(self, planner: Planner) -> Operand:
        """The first, and behind it zeros to which the others are added."""
        first, total = 0, sum(rows for _, rows in self.parts)
        stream: Operand | None = None
        for x, rows in self.parts:
            part = shifted(planner, self.node, x, rows, first, total - first - rows)
            first += rows
            name = result_of(self.node) if first == total else ""
            stream = part.add_to(planner, self.node, stream, name) if stream else (
                part.new_stream(planner)
            )
        assert stream is not None
        return stream


def shifted(
    planner: Planner, node: ir.Node, x: Value, rows: int, before: int, behind: int,
    value: str = "",
) -> Affine:
    """``x`` with so many rows of zeros before and behind it; ``value`` names that."""
    window, name = Window((rows, 1), (1, 1), pads=(before, 0, behind, 0)), f"{result_of(node)}.part"
    if isinstance(x, Affine) and _of_bytes(x):
        return replace(x, name=name, value=value, window=window)
    operand, dim = x.int8(planner, node), int(shape_of(node.outputs[0])[-1])
    return Affine(
        operand, np.ones((dim, 1)), np.zeros(dim), name, value, identity=True,
        window=replace(window, groups=dim),
    )


def _of_bytes(made: Affine) -> bool:
    """Whether rows of zeros, put before it, are zeros behind it; zeros of pixels are not."""
    x = made.x
    whole = bool(x.value) and x.version is None and x.rows is None and x.times is None
    return whole and made.task is None and made.window is None and not made.bias.any()


def plan_constant_rows(planner: Planner, node: ir.Node) -> Stored:
    """``ConstantRows``: the beginning of a stream."""
    return Stored(constant(planner, node, parameter(node, 1), result_of(node)))


def plan_concat_rows(planner: Planner, node: ir.Node) -> Joined:
    """``ConcatRows``: delayed, so that what comes behind it goes to the same stream."""
    parts: list[tuple[Value, int]] = []
    for index, value in enumerate(node.inputs):
        assert value is not None
        x = planner.of(node, index)
        parts += x.parts if isinstance(x, Joined) else [(x, int(shape_of(value)[1]))]
    return Joined(node, tuple(parts))


def plan_concat_channels(planner: Planner, node: ir.Node) -> Stored:
    """``ConcatChannels``: linear maps with zeros for the channels of the other."""
    x, y = affine_of(planner, node, 0), affine_of(planner, node, 1)
    before, behind = x.weight.shape[-2], y.weight.shape[-2]
    stream = _wider(planner, node, x, 0, behind).new_stream(planner)
    added = _wider(planner, node, y, before, 0)
    return Stored(added.add_to(planner, node, stream, result_of(node)))


def _wider(planner: Planner, node: ir.Node, x: Affine, before: int, behind: int) -> Affine:
    if x.task is not None or (x.window is not None and x.window.groups > 1):
        x = Stored(x.int8(planner, node)).affine(planner, node)
    return replace(
        x, weight=np.pad(x.weight, ((before, behind), (0, 0))), value="", name=x.name or "part",
        bias=np.pad(x.bias, (before, behind)), rows=None,
    )
