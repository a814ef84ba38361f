"""Sums in the plan: additions to a stream, by whatever makes the other side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import onnx_ir as ir

from vitrify.ops.linear.plan import Affine, Stored, copy_stream
from vitrify.quant.plan import Operand, unsupported
from vitrify.quant.planner import Addend, Planner, Value, result_of
from vitrify.quant.tensors import Rows


class OnlyAdded(Value):
    """A value with no tensor of its own, that can only be added to a stream."""

    @property
    def only_added(self) -> bool:
        return True

    def int8(self, planner: Planner, node: ir.Node) -> Operand:
        self._refuse(node)

    def stream(self, planner: Planner, node: ir.Node) -> Operand:
        self._refuse(node)

    def operand(self, planner: Planner, node: ir.Node) -> Operand:
        self._refuse(node)

    def logits(self, planner: Planner, node: ir.Node) -> tuple[str, str]:
        self._refuse(node)

    def pick(self, planner: Planner, node: ir.Node, rows: Rows) -> Value:
        self._refuse(node)

    def output(self, planner: Planner, name: str) -> str:
        self._refuse(ir.node("", [], name=name))

    def _refuse(self, node: ir.Node) -> NoReturn:
        raise unsupported(node, "what experts make can only be added to the residual stream")


@dataclass(frozen=True)
class Sum(OnlyAdded):
    """Addends of a stream that is not known yet."""

    parts: tuple[Addend, ...]

    def addends(self, planner: Planner, node: ir.Node) -> list[Addend]:
        return list(self.parts)


def plan_add(planner: Planner, node: ir.Node) -> Value:
    """``Add``: one side is a stream, to which what makes the other is added.

    A stream that is no longer as it was, or of which some rows only are meant, is copied first.
    """
    x, y = planner.of(node, 0), planner.of(node, 1)
    if isinstance(x, Affine) and isinstance(y, Affine) and _alike(x, y):
        return replace(x, weight=x.weight + y.weight, bias=x.bias + y.bias, value=result_of(node))
    if _latest(planner, node, y) and not _latest(planner, node, x):
        x, y = y, x
    if y.is_stream and not x.is_stream:
        x, y = y, x
    if not x.is_stream and (x.only_added or y.only_added):
        return Sum((*x.addends(planner, node), *y.addends(planner, node)))
    stream = x.stream(planner, node)
    if stream.rows is not None or stream.version != planner.versions[stream.tensor]:
        stream = copy_stream(planner, stream)
    parts = sorted(y.addends(planner, node), key=lambda part: not part.reads_old_sum)
    for part in parts:
        stream = part.add_to(planner, node, stream, result_of(node) if part is parts[-1] else "")
    return Stored(stream)


def _alike(x: Affine, y: Affine) -> bool:
    """Whether two linear maps of the same are one."""
    same = (x.x, x.window, x.rows, x.task) == (y.x, y.window, y.rows, y.task)
    return same and x.task is None and not (x.identity or y.identity)


def _latest(planner: Planner, node: ir.Node, x: Value) -> bool:
    """Whether ``x`` is all of a stream as it is now."""
    if not x.is_stream:
        return False
    stream = x.stream(planner, node)
    return stream.rows is None and stream.version == planner.versions[stream.tensor]
