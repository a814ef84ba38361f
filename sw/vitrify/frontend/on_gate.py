"""Routers: from the logits of a gate to whatever follows from them alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .mixed import DRAWS, Gate, Gating, joined
from .trace import ANY, Tracer, handles
from .values import Const, Elementwise, Traced, Unfit, View

#: Operators whose result has the shape of their first input, whatever the others have.
_SCATTER = ("ScatterElements", "ScatterND")


def leave(tracer: Tracer, node: ir.Node, value: Traced | None) -> Gating:
    """``value`` as the logits of a gate: from here on only its values in the draws are followed."""
    tensor, rows = tracer.settler.settle(tracer.view(value), strict=True)
    *lead, width = shape_of(tensor)
    if tensor not in tracer.gates:
        count = tracer.batch * int(np.prod([int(size) for size in lead[1:]]))
        tracer.gates[tensor] = Gate.of(tensor, count, int(width), len(tracer.gates))
    gate = tracer.gates[tensor]
    return Gating([draw[rows] for draw in gate.draws], (gate,), node)


def as_gating(tracer: Tracer, node: ir.Node, value: Traced) -> Gating | None:
    """A value that follows from the logits of known gates, or ``None``."""
    if isinstance(value, Gating):
        return value
    if isinstance(value, Const):
        return Gating([value.array] * DRAWS, (), node)
    if isinstance(value, View | Elementwise):
        try:
            tensor, _ = tracer.settler.settle(tracer.view(value), strict=True)
        except Unfit:
            return None
        return leave(tracer, node, value) if tensor in tracer.gates else None
    return None


@handles("TopK", "ArgMax", "ArgMin", "LogSoftmax", "Hardmax")
def largest(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """The choice of experts, straight from the logits."""
    return known(tracer, node, [leave(tracer, node, inputs[0]), *inputs[1:]])


@handles(ANY, kind=Gating)
def known(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Any operator: run it on every draw."""
    operands = []
    for value in inputs:
        operand = None if value is None else as_gating(tracer, node, value)
        if value is not None and operand is None:
            raise Unfit(
                "it combines the decisions of a router with activations",
                "use them to weigh or to pick the results of experts",
            )
        operands.append(operand)
    given = [operand for operand in operands if operand is not None]
    if node.op_type in ("Shape", "Size") and not given[0].dynamic:
        return [Const(tracer.execute(node, [given[0].arrays[0]])[0])]
    results = [
        tracer.execute(node, [None if value is None else value.arrays[draw] for value in operands])
        for draw in range(DRAWS)
    ]
    leading = given[:1] if node.op_type in _SCATTER else given
    dynamic = node.op_type == "NonZero" or any(value.dynamic for value in leading)
    first = next(value for value in given if value.gates)
    return [
        Gating(list(arrays), joined(*given), first.node, dynamic)
        for arrays in zip(*results, strict=True)
    ]
