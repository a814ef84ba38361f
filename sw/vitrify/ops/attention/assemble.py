"""Softmax attention to integers."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.tensors import Float, Int8, QTensor

from .gates import gate_heads
from .integer import QAttention
from .plan import AttentionOp


def score_bias(bias: Float) -> Int8:
    """What is added to the logits: to base 2, ``LOGIT_FRAC`` fraction bits.

    The largest of a query is zero, as softmax does not see what they have in common: so a mask,
    -inf included, is as far below everything else as a logit can be.
    """
    bias = np.maximum(bias, np.finfo(np.float32).min)
    below = (bias - bias.max(axis=-1, keepdims=True)) * np.log2(np.e) * 2.0**formats.LOGIT_FRAC
    return np.rint(np.maximum(below, -scheme.INT8_MAX)).astype(np.int8)


def assemble(a: Assembler, op: AttentionOp) -> None:
    """Logits to base 2 by one multiplier; the result has the values' format."""
    tensors = a.graph.tensors
    q, k, v = tensors[op.q], tensors[op.k], tensors[op.v]
    dim = q.channels // op.heads
    factor = float(q.scale) * float(k.scale) * op.scale * np.log2(np.e)
    logits = a.single(
        op.name, factor * 2.0**formats.LOGIT_FRAC, scheme.INT8_MAX, dim * scheme.INT8_MAX**2
    )
    made = gate_heads(op, v, a.stats, a.arch.requant_bits)
    a.graph.ops.append(QAttention(
        name=op.name, q=op.q, k=op.k, v=op.v, out=op.out, heads=op.heads, logits=logits,
        row_groups=op.row_groups, bias=None if op.bias is None else score_bias(op.bias),
        gated=made.gates, balance=made.balance,
    ))
    tensors[op.out] = QTensor(op.out, q.rows, v.channels, 8, made.scale, offset=made.offset)
    done = op.heads - sum(len(gate.heads) - gate.k for gate in op.gated)
    a.graph.macs[op.name] = (
        q.rows * (k.rows // op.row_groups) * (dim + v.channels // op.heads) * done
    )
