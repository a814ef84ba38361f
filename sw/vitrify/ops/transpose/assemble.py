"""Transposed tensors to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.arch.errors import ModelError
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.tensors import Float, QTensor

from .integer import ONE, QTranspose, RowNorm
from .plan import OverTokens, TransposeOp

#: Steps of the int16 rows in one of bytes, at most.
_FINER = 128
_GAIN_ONE = 1 << formats.GAIN_FRAC
_GAIN_MAX = (1 << formats.GAIN_BITS) - 1


def assemble(a: Assembler, op: TransposeOp) -> None:
    """The same bytes, or logits to base 2, or what normalisation makes of them."""
    x = a.graph.tensors[op.x]
    factor, scale, norm = 1.0, x.scale, None
    if op.logits:
        scale = np.log(2.0) * 2.0**-formats.LOGIT_FRAC
        factor = float(x.scale) / scale
    elif op.over is not None:
        norm = _norm(a, op, op.over, x.scale)
        scale = _GAIN_ONE / norm.gain
    a.graph.ops.append(QTranspose(
        name=op.name, x=op.x, out=op.out, row_groups=op.groups, norm=norm, logits=op.logits,
        requant=a.single(op.name, factor / ONE, scheme.INT8_MAX, ONE * scheme.INT8_MAX),
    ))
    a.graph.tensors[op.out] = QTensor(
        op.out, op.groups * x.channels, op.tokens, formats.INT8.bits, scale,
    )


def _norm(a: Assembler, op: TransposeOp, over: OverTokens, step: float | Float) -> RowNorm:
    """The gain that brings normalised rows to the range of bytes."""
    stats = a.stats[over.made]
    rows, peak = stats.rows / over.factor, float(stats.peak.max()) / over.factor
    gain = int(np.clip(round(_GAIN_ONE / scheme.tensor_step(rows, peak)), 1, _GAIN_MAX))
    coarse, finest = float(np.max(step)), over.normaliser.finest_step
    if finest > coarse:
        raise ModelError(
            f"{over.node.name!r}: its epsilon of {over.epsilon:.3g} is larger than the core can "
            f"express beside values of at most {coarse * scheme.INT8_MAX:.3g}; scale its input up, "
            f"and epsilon with the square"
        )
    finer = 1 << int(np.log2(coarse / max(finest, coarse / _FINER)))
    wide = a.single(op.name, finer / ONE, INT16_MAX, ONE * scheme.INT8_MAX)
    return RowNorm(wide, over.normaliser.statistics(coarse / finer, op.tokens), gain)
