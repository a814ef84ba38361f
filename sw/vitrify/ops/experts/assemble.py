"""Mixtures of experts to integers: a pair of layers for each expert, by the rows that choose it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.ops.linear.integer import QLinear
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.hidden import hidden
from vitrify.quant.operands import INT16_MAX, Source, source
from vitrify.quant.rounding import Moments
from vitrify.quant.tensors import QTensor, Statistics

from .integer import QExperts
from .plan import ExpertsOp
from .usage import expert_usage, own_rows


def assemble(a: Assembler, op: ExpertsOp) -> None:
    """All experts, and the tensor of the sum."""
    mixture, graph = op.mixture, a.graph
    x, dim = a.operand(mixture.x, a.bits), mixture.w2.shape[1]
    both = a.stats[op.rows_and_scores()].rows
    rows, scores = np.split(both, [len(x.step)], axis=1)
    count = graph.tensors[mixture.x.tensor].rows
    statistics = a.statistics(op.out, op.version, dim)
    experts = tuple(
        _expert(a, op, number, x, own, statistics)
        for number, own in enumerate(own_rows(rows, scores, mixture.k))
    )
    graph.tensors[op.out] = QTensor(op.out, count, dim, formats.RESIDUAL_BITS, a.steps[op.out])
    for part, weight in (("fc1", mixture.w1), ("fc2", mixture.w2)):
        graph.macs[f"{op.name}.{part}"] = count * mixture.k * weight[0].size
    graph.ops.append(QExperts(
        name=op.name, x=mixture.x.tensor, logits=mixture.logits, residual=op.residual, out=op.out,
        choices=mixture.k, normalise=mixture.normalize, experts=experts, statistics=statistics,
        usage=expert_usage(scores, mixture.k, count),
    ))


def _expert(
    a: Assembler, op: ExpertsOp, number: int, x: Source,
    own: npt.NDArray[np.floating], statistics: Statistics | None,
) -> tuple[QLinear, QLinear]:
    """Both layers of one expert, calibrated by the rows ``own [S, D]``."""
    mixture = op.mixture
    w1, b1, w2, b2 = (
        each[number] for each in (mixture.w1, mixture.b1, mixture.w2, mixture.b2)
    )
    q = x.quantise(own)
    before = (q * x.step + x.offset) @ w1.T + b1
    units = hidden(
        mixture.kind, w1, b1 + w1 @ x.offset, before, before.max(axis=0), np.sum(w2**2, axis=0)
    )
    inner = QTensor(
        f"{op.name}.hidden[{number}]", a.graph.tensors[mixture.x.tensor].rows, len(units.weight),
        8, units.scale, units.zero_point, units.offset, units.copies,
    )
    a.graph.tensors[inner.name] = inner
    first = a.columns(
        f"{op.name}.fc1[{number}]", replace(x, moments=Moments(q)), units.weight, units.bias,
        units.step_in, scheme.INT8_MAX, a.bits,
    )
    middle = source(inner, Moments(units.codes.astype(np.float32) - inner.zero_point))
    weight = w2[:, middle.channels]
    second = a.columns(
        f"{op.name}.fc2[{number}]", middle, weight, b2 + weight @ middle.offset,
        a.steps[op.out], INT16_MAX, a.bits,
    )
    return (
        QLinear(name=f"{op.name}.fc1", x=mixture.x.tensor, out=inner.name, weight=first.weight,
                requant=first.requant, norm=x.norm, table=units.table, bits=first.bits),
        QLinear(name=f"{op.name}.fc2", x=inner.name, out=op.out, weight=second.weight,
                requant=second.requant, add=True, statistics=statistics, bits=second.bits),
    )
