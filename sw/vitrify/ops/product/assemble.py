"""Products of two activations to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.ops.transpose.integer import ONE
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.operands import INT16_MAX, OUTPUT_MARGIN
from vitrify.quant.tensors import Float, QTensor, Requant

from .integer import QProduct
from .op import Divides, ProductOp
from .shares_integer import WHOLE, QShares
from .softmax import SharesOp

#: Smaller sums divide as this one does: it is the weight of softmax for the row's maximum.
_LEAST_SUM = 1 << (formats.LOGIT_FRAC + formats.SOFTMAX_SHIFT)


def assemble(a: Assembler, op: ProductOp) -> None:
    """One multiplier for each head; a softmax has none, and its result the steps of y.

    Quotients have the step of the product over that of the sums.
    """
    x, y = (a.graph.tensors[name] for name in (op.x, op.y))
    heads = op.heads if op.x in op.stacked else 1
    rows, depth = x.rows // (op.groups * heads), x.channels * heads // op.heads
    scale, offset, requants = y.scale, y.offset, tuple[Requant, ...]()
    reach, bits = (INT16_MAX, formats.RESIDUAL_BITS) if op.divides else (scheme.INT8_MAX, 8)
    if op.divisor is not None:
        unit = float(x.scale) * float(y.scale)
        scale, offset = unit / float(a.graph.tensors[op.divisor].scale), 0.0
    elif not op.softmax:
        steps, unit, offset = _steps(a, op), float(x.scale) * float(y.scale), 0.0
        scale = float(steps[0])
        if np.ptp(steps):
            scale = np.repeat(steps, op.width // op.heads)
        requants = tuple(
            a.single(op.name, unit * factor / step, reach, depth * scheme.INT8_MAX**2)
            for factor, step in zip(op.scales, steps, strict=True)
        )
    a.graph.ops.append(QProduct(
        name=op.name, x=op.x, y=op.y, out=op.out, heads=op.heads, row_groups=op.groups,
        rows_y=op.rows_y, stacked=op.stacked, requants=requants, softmax=op.softmax,
        logits=op.logits, divisor=op.divisor, sums=op.divides is not None,
    ))
    count = op.groups * rows * (op.heads if op.out in op.stacked else 1)
    a.graph.tensors[op.out] = QTensor(
        op.out, count, op.width, bits, scale, offset=offset
    )
    a.graph.macs[op.name] = op.macs


def _steps(a: Assembler, op: ProductOp) -> Float:
    """One for each head, all the same if the readers cannot do with more."""
    if op.logits:
        return np.full(op.heads, np.log(2.0) * 2.0**-formats.LOGIT_FRAC)
    if op.divides is not None:
        return np.full(op.heads, _sums_step(a, op, op.divides))
    stats = a.stats[op.result()]
    if a.needs(op.out).one_step:
        return np.full(op.heads, scheme.tensor_step(stats.rows, float(stats.peak.max())))
    parts = zip(
        np.split(stats.rows, op.heads, axis=1), np.split(stats.peak, op.heads), strict=True
    )
    return np.array([scheme.tensor_step(rows, float(peak.max())) for rows, peak in parts])


def _sums_step(a: Assembler, op: ProductOp, divides: Divides) -> float:
    """The step of sums that leaves quotients the least error.

    A finer one makes quotients coarser, and a coarser one more sums too small to be divided by.
    """
    rows = a.stats[divides.request()].rows
    sums, quotients = rows[:, -op.heads :], rows[:, : -op.heads]
    each = quotients.reshape(len(rows), op.heads, -1)
    unit = float(a.graph.tensors[op.x].scale) * float(a.graph.tensors[divides.y].scale)
    coarsest = unit / scheme.tensor_step(quotients, float(np.abs(quotients).max()))
    finest = OUTPUT_MARGIN * float(np.abs(sums).max()) / INT16_MAX
    best, least = max(coarsest, finest), np.inf
    for step in coarsest * 2.0 ** -np.arange(0, 8, 0.5):
        lost = 1 - np.clip(sums / (_LEAST_SUM * step), 0, 1)
        cost = float(np.mean((each * lost[..., None]) ** 2)) + (unit / step) ** 2 / 12
        if step >= finest and cost < least:
            best, least = float(step), cost
    return best


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
