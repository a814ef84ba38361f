"""Constant matrices over tokens to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.graph import QConstant
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.tensors import Float, Int8, QTensor, Requant

from .integer import QMix
from .plan import MixOp


def assemble(a: Assembler, op: MixOp) -> None:
    """A matrix with one step and one multiplier for each head; a bias is there before."""
    x, step = a.graph.tensors[op.x], a.steps[op.out]
    _, count, inner = op.matrix.shape
    statistics = a.statistics(op.out, op.version, x.channels)
    made = [_matrix(a, op.name, matrix, float(x.scale), step) for matrix in op.matrix]
    rows = op.groups * count
    bias = np.clip(np.rint(op.bias / step), -INT16_MAX - 1, INT16_MAX).astype(np.int16)
    a.graph.tensors[op.out] = QTensor(op.out, rows, x.channels, formats.RESIDUAL_BITS, step)
    if bias.any():
        a.graph.constants.append(QConstant(
            op.out, np.broadcast_to(np.tile(bias, op.groups)[:, None], (rows, x.channels))
        ))
    a.graph.ops.append(QMix(
        name=op.name, x=op.x, out=op.out, matrix=np.stack([matrix for matrix, _ in made]),
        requants=tuple(requant for _, requant in made), row_groups=op.groups,
        add=bool(bias.any()), statistics=statistics,
    ))
    a.graph.macs[op.name] = rows * inner * x.channels


def _matrix(
    a: Assembler, name: str, matrix: Float, x_step: float, out_step: float
) -> tuple[Int8, Requant]:
    """Integers of one head.

    The matrix is rounded to the step that the rounded multiplier stands for, so that
    requantisation itself adds no error of scale.
    """
    step = scheme.tensor_step(matrix, float(np.abs(matrix).max()))
    bound = float(np.abs(matrix).sum(axis=1).max()) / step * scheme.INT8_MAX
    requant = a.single(name, step * x_step / out_step, INT16_MAX, bound)
    step = float(requant.unit) * out_step / x_step
    whole = np.clip(np.rint(matrix / step), -scheme.INT8_MAX, scheme.INT8_MAX)
    return whole.astype(np.int8), requant
