"""The patch embedding to integers: a layer, which adds to initial values where rows differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitrify.arch import formats
from vitrify.ops.linear.integer import QLinear
from vitrify.quant.assemble import Assembler
from vitrify.quant.evaluate import quantise_input
from vitrify.quant.graph import LayerScales, QConstant
from vitrify.quant.operands import INT16_MAX
from vitrify.quant.plan import unsupported
from vitrify.quant.requant import columns
from vitrify.quant.rounding import Moments
from vitrify.quant.tensors import QTensor

from .plan import PatchOp

#: Images that the statistics of the 8-bit pixels are taken from.
_PIXEL_IMAGES = 16


def assemble(a: Assembler, op: PatchOp) -> None:
    """The layer, its operand of pixels, and a constant if some row has one of its own."""
    spec, graph = a.graph.input, a.graph
    # One by one: the samples of all tensors are in memory beside them.
    rows = np.concatenate([quantise_input(spec, image[None]) for image in a.images[:_PIXEL_IMAGES]])
    rows = rows[:, spec.prefix :].reshape(-1, rows.shape[2])
    count = op.patch[0] * op.patch[1]
    multiplier, offset = np.repeat(spec.multiplier, count), np.repeat(spec.offset, count)
    if op.out not in a.steps:
        raise unsupported(op.value, "nothing reads the patch embedding")
    step = a.steps[op.out]
    weight = op.weight / multiplier
    dim, total = len(weight), len(op.position)
    alike = not len(op.prefix) and not np.ptp(op.position, axis=0).any()
    bias = op.bias + op.position[0] if alike else op.bias
    part = columns(
        weight, bias - weight @ offset, step, moments=Moments(rows), reach=INT16_MAX,
        requant_bits=a.arch.requant_bits, what=op.name,
    )
    requant = part.requant
    real = part.step * (part.weight @ offset + requant.bias)
    graph.scales[op.name] = LayerScales(
        part.step, 1 / multiplier, -offset / multiplier,
        real - op.position[0] if alike else real, None, False,
    )
    if not alike:
        # The bias goes into the constant: the prefix rows, products of zeros, must not have it.
        value = op.position.copy()
        value[: len(op.prefix)] += op.prefix
        value[len(op.prefix) :] += requant.bias * part.step
        initial = np.clip(np.rint(value / step), -INT16_MAX - 1, INT16_MAX).astype(np.int16)
        graph.constants.append(QConstant(op.out, initial))
        requant = replace(requant, bias=0)
    graph.tensors[spec.out] = QTensor(
        spec.out, total, weight.shape[1], 8, np.repeat(1 / spec.multiplier, count)
    )
    graph.tensors[op.out] = QTensor(op.out, total, dim, formats.RESIDUAL_BITS, step)
    graph.ops.append(QLinear(
        name=op.name, x=spec.out, out=op.out, weight=part.weight, requant=requant,
        add=not alike, statistics=a.statistics(op.out, 0, dim),
    ))
    graph.macs[op.name] = (total - len(op.prefix)) * weight.size
