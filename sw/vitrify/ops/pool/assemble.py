"""Means over tokens to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.tensors import QTensor

from .integer import QPool
from .plan import PoolOp


def assemble(a: Assembler, op: PoolOp) -> None:
    """The operand that all rows are multiplied by, and the multiplier that divides."""
    x, step = a.graph.tensors[op.x], a.steps[op.out]
    count = op.stop - op.start
    factor = float(x.scale) / (count * step)
    # An accumulator finer than the result, whatever the number of rows.
    weight = int(np.clip(np.ceil(factor), 1, scheme.INT8_MAX))
    a.graph.ops.append(QPool(
        name=op.name, x=op.x, out=op.out, start=op.start, stop=op.stop, weight=weight,
        requant=a.single(op.name, factor / weight, INT16_MAX, weight * count * scheme.INT8_MAX),
        statistics=a.statistics(op.out, op.version, x.channels),
    ))
    a.graph.tensors[op.out] = QTensor(op.out, 1, x.channels, formats.RESIDUAL_BITS, step)
    a.graph.macs[op.name] = count * x.channels
