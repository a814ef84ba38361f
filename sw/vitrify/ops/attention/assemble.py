"""Attention to integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.arch import formats
from vitrify.ops.transpose.integer import ONE
from vitrify.quant import scheme, tables
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import Request
from vitrify.quant.tensors import Float, Int8, QTensor

from .gates import Gated, gate_heads
from .integer import QAttention, QPositions
from .plan import AttentionOp, Weights


def score_bias(bias: Float) -> Int8:
    """What is added to the logits: to base 2, ``LOGIT_FRAC`` fraction bits.

    The largest of a query is zero, as softmax does not see what they have in common: so a mask,
    -inf included, is as far below everything else as a logit can be.
    """
    bias = np.maximum(bias, np.finfo(np.float32).min)
    below = (bias - bias.max(axis=-1, keepdims=True)) * np.log2(np.e) * 2.0**formats.LOGIT_FRAC
    return np.rint(np.maximum(below, -scheme.INT8_MAX)).astype(np.int8)


@dataclass(frozen=True)
class _Weights:
    """``step`` of the scores, and behind the ``table``: ``scale``."""

    step: float
    scale: float = 1.0
    table: Int8 | None = None


def _weights(a: Assembler, weights: Weights | None) -> _Weights:
    """Logits to base 2, or bytes of the scores, or what a function makes of them."""
    if weights is None:
        return _Weights(float(np.log(2.0)) * 2.0**-formats.LOGIT_FRAC)
    stats = a.stats[Request(weights.scores)]
    if weights.kind is None:
        step = scheme.tensor_step(stats.rows, float(stats.peak.max()))
        return _Weights(step, step)
    function = tables.centred_activation(weights.kind, stats.rows, weights.shift)
    return _Weights(function.step_in, function.step_out, function.table)


def assemble(a: Assembler, op: AttentionOp) -> None:
    """Scores by one multiplier; what softmax weighs has the values' format."""
    tensors = a.graph.tensors
    q, k, v = tensors[op.q], tensors[op.k], tensors[op.v]
    dim = q.channels // op.heads
    weights, values = _weights(a, op.weights), None
    logits = a.single(
        op.name, float(q.scale) * float(k.scale) * op.scale / weights.step, scheme.INT8_MAX,
        dim * scheme.INT8_MAX**2,
    )
    positions = tuple(
        QPositions(
            each.tensor, np.array(each.keys), a.single(
                op.name, float(tensors[each.tensor].scale) / (ONE * weights.step),
                scheme.INT8_MAX, ONE * scheme.INT8_MAX,
            )
        )
        for each in op.positions
    )
    made = gate_heads(op, v, a.stats, a.arch.requant_bits)
    if op.weights is not None:
        stats, unit = a.stats[op.result()], float(v.scale) * weights.scale
        step = scheme.tensor_step(stats.rows, float(stats.peak.max()))
        bound = k.rows // op.row_groups * scheme.INT8_MAX**2
        values = a.single(op.name, unit / step, scheme.INT8_MAX, bound)
        made = Gated(step, 0.0)
    a.graph.ops.append(QAttention(
        name=op.name, q=op.q, k=op.k, v=op.v, out=op.out, heads=op.heads, logits=logits,
        row_groups=op.row_groups, bias=None if op.bias is None else score_bias(op.bias),
        positions=positions, table=weights.table, values=values, gated=made.gates,
        balance=made.balance,
    ))
    tensors[op.out] = QTensor(op.out, q.rows, v.channels, 8, made.scale, offset=made.offset)
    done = op.heads - sum(len(gate.heads) - gate.k for gate in op.gated)
    a.graph.macs[op.name] = (
        q.rows * (k.rows // op.row_groups) * (dim + v.channels // op.heads) * done
    )
