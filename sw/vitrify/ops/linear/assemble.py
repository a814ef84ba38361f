"""Linear layers to integers: the format of the result, then weights that give it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vitrify.arch import formats
from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.graph import LayerScales
from vitrify.quant.hidden import hidden
from vitrify.quant.operands import INT16_MAX, OUTPUT_MARGIN, Source
from vitrify.quant.requant import Columns, finest
from vitrify.quant.rounding import weigh
from vitrify.quant.tensors import Float, Int8, QTensor
from vitrify.quant.wanted import WIDE

from .integer import QLinear
from .map_operand import windows
from .plan import LinearOp

#: Real value of a step of gate logits: they hold ``z * log2(e)``.
LOGIT_STEP = float(np.log(2.0)) * 2.0**-formats.GATE_LOGIT_FRAC


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Real weights and bias behind the operand's transform, and the format of what they give.

    ``step`` is that of the linear map's result; ``scale``, ``zero_point``, ``offset`` and
    ``copies`` are those of the tensor, behind the table if there is one.
    """

    weight: Float
    bias: Float
    step: float | Float
    scale: float | Float
    bits: int = formats.RESIDUAL_BITS
    table: Int8 | None = None
    zero_point: int = 0
    offset: float | Float = 0.0
    copies: tuple[int, ...] = ()


def assemble(a: Assembler, op: LinearOp) -> None:
    """One layer, and its result unless it adds to one that is there."""
    bits = a.bits if _may_have_few(op) else WIDE
    x = a.operand(op.x, bits)
    if op.window is not None:
        x = windows(a, op, x)
    form = _form(a, op, x, bits)
    count = op.x.rows.count if op.x.rows else a.graph.tensors[op.x.tensor].rows
    count, work = (count, count) if op.window is None else (op.window.count, op.window.reading)
    dim = form.weight.shape[-2]
    reach = scheme.INT8_MAX if form.bits == formats.INT8.bits else INT16_MAX
    if a.loop is not None and bits != WIDE and _plain(op):
        x = replace(x, moments=a.loop.moments(x, op.x.tensor, op.x.rows))
    groups = a.plan.groups.get(op.out, 1)
    part = a.columns(op.name, x, form.weight, form.bias, form.step, reach, bits, groups)
    if _plain(op) and op.task is None:
        a.graph.scales[op.name] = _scales(op, x, form, part)
    gathers = op.role in ("add", "stream")
    a.graph.ops.append(QLinear(
        name=op.name, x=op.x.tensor, out=op.out, weight=part.weight, requant=part.requant,
        bits=part.bits, norm=x.norm, times=x.times, table=form.table, add=op.role == "add",
        statistics=a.statistics(op.out, op.version, dim) if gathers else None,
        rows=op.x.rows, task=op.task, covers=op.covered,
        window=op.window,
    ))
    if op.role != "add":
        a.graph.tensors[op.out] = QTensor(
            op.out, count, dim, form.bits, form.scale, form.zero_point, form.offset, form.copies
        )
    size = op.weight.shape[-2] * op.weight.shape[-1]
    a.graph.macs[op.name] = 0 if op.identity else work * size


def _scales(op: LinearOp, x: Source, form: _Form, part: Columns) -> LayerScales:
    """What the integers mean; where units are split, those of the first copies."""
    units, inputs = op.weight.shape
    whole = part.requant.bias + x.zero_point * part.weight.sum(axis=1, dtype=np.int64)
    real = part.weight * part.step[:, None]
    used = np.where(x.step == 0, 1.0, x.step)
    centre = op.bias + weigh(op.weight[:, x.channels], x.offset) - form.bias[:units]
    bias = (part.step * whole - (real / used) @ x.offset)[:units] + centre
    table = None if form.table is None else (float(np.max(form.step)), centre)
    return LayerScales(
        part.step[:units], used[:inputs], x.offset[:inputs], bias, table, x.norm is not None
    )


def _may_have_few(op: LinearOp) -> bool:
    """Whether weights of few bits make sense: not where results are logits, and not of copies.

    Depthwise kernels are few bytes as it is.
    """
    depthwise = op.window is not None and op.window.groups > 1
    return op.role not in ("gate", "output") and not op.identity and not depthwise


def _plain(op: LinearOp) -> bool:
    """Whether it streams the rows of one tensor."""
    return op.window is None and op.x.times is None


def _form(a: Assembler, op: LinearOp, x: Source, bits: int) -> _Form:
    weight = op.weight[..., x.channels]
    bias = op.bias + weigh(weight, x.offset)
    if op.role == "int8":
        return _activated(a, op, weight, bias) if op.kind else (
            _bytes(a, op, x, weight, bias, bits)
        )
    if op.role == "gate":
        step = LOGIT_STEP
    elif op.role == "output":
        step = _output_step(a, op)
    else:
        step = a.steps[op.out]
    return _Form(weight=weight, bias=bias, step=step, scale=step)


def _activated(a: Assembler, op: LinearOp, weight: Float, bias: Float) -> _Form:
    """int8 behind a table, large units split over several channels."""
    assert op.kind is not None
    stats, importance = a.stats[op.hidden()], a.importance(op.out)
    symmetric = a.needs(op.out).symmetric or (op.window is not None and op.window.groups > 1)
    before, behind = a.given.byte(op.before), a.given.byte(op.value)
    if before is not None:
        a.kept.tables.add(op.before)
    if behind is not None and symmetric and behind.zero:
        behind = None
    units = hidden(
        op.kind, weight, bias, stats.rows, stats.high,
        np.ones(op.weight.shape[-2]) if importance is None else importance,
        symmetric, before and before.format, behind and behind.format,
    )
    a.codes[op.out] = units.codes
    return _Form(
        weight=units.weight, bias=units.bias, step=units.step_in, scale=units.scale,
        bits=formats.INT8.bits, table=units.table, zero_point=units.zero_point,
        offset=units.offset, copies=units.copies,
    )


def _bytes(
    a: Assembler, op: LinearOp, x: Source, weight: Float, bias: Float, bits: int
) -> _Form:
    """int8 in the format that all its readers can absorb.

    A step for each channel goes into the weights of linear readers, a constant into their bias.
    No step is finer than the core can scale to, which matters where the inputs hardly change.
    """
    stats, needs = a.stats[op.result()], a.needs(op.out)
    offset: float | Float = 0.0 if needs.zero else stats.mean
    peak = np.maximum(stats.high - offset, offset - stats.low)
    rows = stats.rows - offset
    least = finest(weight * x.step, bias - offset, a.grids[bits])
    least = least.reshape(-1, least.shape[-1]).max(axis=0)
    own = a.given.byte(op.value)
    if own is not None and own.step >= least.max() and not (needs.zero and own.zero):
        return _Form(
            weight=weight, bias=bias - own.offset, step=own.step, scale=own.step,
            bits=formats.INT8.bits, offset=own.offset,
        )
    if needs.one_step:
        top = float(peak.max())
        best = top / scheme.INT8_MAX if needs.whole else scheme.tensor_step(rows, top)
        step: float | Float = max(best, float(least.max()))
    else:
        step = np.maximum(scheme.channel_steps(rows, peak), least)
    return _Form(
        weight=weight, bias=bias - offset, step=step, scale=step, bits=formats.INT8.bits,
        offset=offset,
    )


def _output_step(a: Assembler, op: LinearOp) -> float:
    """Power-of-two step at which 16 bits hold what was seen, with a margin."""
    peak = max(float(a.stats[op.result()].peak.max()) * OUTPUT_MARGIN, 1e-6)
    return 2.0 ** int(np.ceil(np.log2(peak / INT16_MAX)))
