"""Both factors of a rotary position embedding in integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.ops.linear.integer import QLinear
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import Request
from vitrify.quant.graph import QConstant
from vitrify.quant.tensors import QTensor

from .plan import AnglesOp, BothOp


def assemble_both(a: Assembler, op: BothOp) -> None:
    """A layer whose channels have the steps of their partners: the sums of both are exact."""
    x, stats = a.operand(op.x), a.stats[Request(op.before, op.rows)]
    peak, rows, dim = stats.peak[op.order], stats.rows[:, op.order], len(op.order) // 2
    steps = scheme.channel_steps(rows, peak)
    steps = np.tile(np.maximum(steps[:dim], steps[dim:]), 2)
    weight = op.weight[..., x.channels]
    part = a.columns(op.name, x, weight, op.bias + weight @ x.offset, steps, scheme.INT8_MAX)
    codes = np.clip(np.rint(rows / steps), -scheme.INT8_MAX, scheme.INT8_MAX)
    a.codes[op.out] = codes.astype(np.int8)
    count = op.x.rows.count if op.x.rows else a.graph.tensors[op.x.tensor].rows
    a.graph.ops.append(QLinear(
        name=op.name, x=op.x.tensor, out=op.out, weight=part.weight, requant=part.requant,
        norm=x.norm, times=x.times, rows=op.x.rows,
    ))
    a.graph.tensors[op.out] = QTensor(op.out, count, 2 * dim, formats.INT8.bits, steps)
    # The partners are the same channels once more.
    a.graph.macs[op.name] = count * weight.size // 2


def assemble_angles(a: Assembler, op: AnglesOp) -> None:
    """Cosines and sines, one step for all."""
    step = max(float(np.abs(op.rows).max()), 1e-9) / scheme.INT8_MAX
    value, (count, dim) = np.rint(op.rows / step).astype(np.int8), op.rows.shape
    a.codes[op.out] = value
    a.graph.tensors[op.out] = QTensor(op.out, count, dim, formats.INT8.bits, step)
    a.graph.constants.append(QConstant(op.out, value))
