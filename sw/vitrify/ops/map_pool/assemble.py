"""Maxima of windows to integers."""

from __future__ import annotations

from dataclasses import replace

from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler

from .integer import QLargest
from .plan import LargestOp

#: A power of two, so that the multiplier takes it off exactly.
_WEIGHT = 64


def assemble(a: Assembler, op: LargestOp) -> None:
    """The format is that of the map."""
    x = a.graph.tensors[op.x]
    a.graph.tensors[op.out] = replace(x, name=op.out, rows=op.window.count)
    bound = _WEIGHT * scheme.INT8_MAX
    a.graph.ops.append(QLargest(
        name=op.name, x=op.x, out=op.out, window=op.window, weight=_WEIGHT,
        requant=a.single(op.name, 1 / _WEIGHT, scheme.INT8_MAX, bound),
    ))
    a.graph.macs[op.name] = 0
