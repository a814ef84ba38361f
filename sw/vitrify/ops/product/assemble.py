"""Products of two activations to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.tensors import Float, QTensor, Requant

from .integer import QProduct
from .op import ProductOp
from .shares_integer import ONE, WHOLE, QShares
from .softmax import SharesOp


def assemble(a: Assembler, op: ProductOp) -> None:
    """One multiplier for each head; a softmax has none, and its result the steps of y."""
    x, y = (a.graph.tensors[name] for name in (op.x, op.y))
    heads = op.heads if op.x in op.stacked else 1
    rows, depth = x.rows // (op.groups * heads), x.channels * heads // op.heads
    scale, offset, requants = y.scale, y.offset, tuple[Requant, ...]()
    if not op.softmax:
        steps, unit, offset = _steps(a, op), float(x.scale) * float(y.scale), 0.0
        scale = float(steps[0])
        if np.ptp(steps):
            scale = np.repeat(steps, op.width // op.heads)
        requants = tuple(
            a.single(op.name, unit * factor / step, scheme.INT8_MAX, depth * scheme.INT8_MAX**2)
            for factor, step in zip(op.scales, steps, strict=True)
        )
    a.graph.ops.append(QProduct(
        name=op.name, x=op.x, y=op.y, out=op.out, heads=op.heads, row_groups=op.groups,
        rows_y=op.rows_y, stacked=op.stacked, requants=requants, softmax=op.softmax,
        logits=op.logits,
    ))
    count = op.groups * rows * (op.heads if op.out in op.stacked else 1)
    a.graph.tensors[op.out] = QTensor(
        op.out, count, op.width, formats.INT8.bits, scale, offset=offset
    )
    a.graph.macs[op.name] = op.macs


def _steps(a: Assembler, op: ProductOp) -> Float:
    """One for each head, all the same if the readers cannot do with more."""
    if op.logits:
        return np.full(op.heads, np.log(2.0) * 2.0**-formats.LOGIT_FRAC)
    stats = a.stats[op.result()]
    if a.needs(op.out).one_step:
        return np.full(op.heads, scheme.tensor_step(stats.rows, float(stats.peak.max())))
    parts = zip(
        np.split(stats.rows, op.heads, axis=1), np.split(stats.peak, op.heads), strict=True
    )
    return np.array([scheme.tensor_step(rows, float(peak.max())) for rows, peak in parts])


def assemble_shares(a: Assembler, op: SharesOp) -> None:
    """Bytes to logits by one multiplier."""
    x = a.graph.tensors[op.x]
    factor = float(x.scale) / (np.log(2.0) * 2.0**-formats.LOGIT_FRAC)
    a.graph.ops.append(QShares(
        name=op.name, x=op.x, out=op.out, heads=op.heads,
        logits=a.single(op.name, factor / ONE, scheme.INT8_MAX, ONE * scheme.INT8_MAX),
    ))
    a.graph.tensors[op.out] = QTensor(
        op.out, x.rows, x.channels, formats.INT8.bits, 1.0 / WHOLE
    )
