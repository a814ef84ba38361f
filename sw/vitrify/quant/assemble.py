"""Plan and statistics to integers, op by op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig

from . import scheme
from .calibrate import Progress, Request, Stats
from .evaluate import quantise_input
from .experts import LOGIT_STEP, asked, own_rows
from .graph import (
    Float,
    QAttention,
    QConstant,
    QExperts,
    QInput,
    QLinear,
    QPool,
    QTensor,
    QuantGraph,
)
from .heads import weigh
from .hidden import Hidden, hidden
from .operands import INT16_MAX, OUTPUT_MARGIN, Operands, Source, source
from .plan import (
    AttentionOp,
    ExpertsOp,
    LinearOp,
    PatchOp,
    Plan,
    PoolOp,
    reads,
    unsupported,
)
from .requant import Columns, columns, single
from .rounding import Moments

#: Images that the statistics of the 8-bit pixels are taken from.
_PIXEL_IMAGES = 16


class Assembler(Operands):
    """Builds :attr:`graph` from a plan, the statistics of its tensors and the input's format."""

    def __init__(
        self,
        plan: Plan,
        stats: Mapping[Request, Stats],
        arch: ArchConfig,
        spec: QInput,
        images: npt.NDArray[np.float32],
        progress: Progress | None = None,
    ) -> None:
        super().__init__(plan, stats, QuantGraph(
            plan.name, spec, outputs=dict(plan.outputs), tasks=dict(plan.tasks)
        ))
        self.arch, self.images = arch, images
        for i, op in enumerate(plan.ops):
            if isinstance(op, PatchOp):
                self._patch(op)
            elif isinstance(op, LinearOp):
                self._linear(op)
            elif isinstance(op, AttentionOp):
                self._attention(op)
            elif isinstance(op, ExpertsOp):
                self._experts(op)
            else:
                self._pool(op)
            if op.value:
                self.graph.values[op.name] = op.value
            if progress is not None:
                progress("quantising", (i + 1) / len(plan.ops))

    # Ops -----------------------------------------------------------------------------------
    def _patch(self, op: PatchOp) -> None:
        spec, graph = self.graph.input, self.graph
        rows = quantise_input(spec, self.images[:_PIXEL_IMAGES]).astype(np.float64)
        rows = rows[:, spec.prefix :].reshape(-1, rows.shape[2])
        count = op.patch[0] * op.patch[1]
        multiplier, offset = np.repeat(spec.multiplier, count), np.repeat(spec.offset, count)
        if op.out not in self.steps:
            raise unsupported(op.value, "nothing reads the patch embedding")
        step = self.steps[op.out]
        weight = op.weight / multiplier
        dim, total = len(weight), len(op.position)
        part = columns(
            weight,
            op.bias - weight @ offset,
            step,
            moments=Moments(rows),
            reach=INT16_MAX,
            requant_bits=self.arch.requant_bits,
            what=op.name,
        )
        # The bias goes into the constant: the prefix rows, products of zeros, must not have it.
        value = op.position.copy()
        value[: len(op.prefix)] += op.prefix
        value[len(op.prefix) :] += part.requant.bias * part.step
        constant = np.clip(np.rint(value / step), -INT16_MAX - 1, INT16_MAX).astype(np.int16)
        graph.tensors[spec.out] = QTensor(
            spec.out, total, weight.shape[1], 8, np.repeat(1 / spec.multiplier, count)
        )
        graph.tensors[op.out] = QTensor(op.out, total, dim, formats.RESIDUAL_BITS, step)
        graph.constants.append(QConstant(op.out, constant))
        graph.ops.append(
            QLinear(
                op.name,
                spec.out,
                op.out,
                part.weight,
                replace(part.requant, bias=0),
                add=True,
                statistics=self.statistics(op.out, 0, dim),
            )
        )
        graph.macs[op.name] = (total - len(op.prefix)) * weight.size

    def _linear(self, op: LinearOp) -> None:
        x = self.operand(op.x)
        weight = op.weight[..., x.channels]
        bias = op.bias + weight @ x.offset
        table, source = None, self.graph.tensors[op.x.tensor]
        rows = op.x.rows[1] if op.x.rows else source.rows
        bits, copies, zero_point = formats.RESIDUAL_BITS, (), 0
        step: float | Float
        scale: float | Float
        offset: float | Float = 0.0
        if op.role == "int8":
            bits = formats.INT8.bits
            if op.kind:
                units = self._hidden(op, weight, bias)
                weight, bias, step, table = units.weight, units.bias, units.step_in, units.table
                scale, zero_point, offset = units.scale, units.zero_point, units.offset
                copies, self.codes[op.out] = units.copies, units.codes
            else:
                step, offset = self._byte_format(op)
                bias, scale = bias - offset, step
        elif op.role == "gate":
            step = scale = LOGIT_STEP
        elif op.role == "output":
            step = scale = _output_step(self.stats[Request(op.value, op.x.rows)])
        else:
            step = scale = self.steps[op.out]
        part = self._columns(
            op.name, x, weight, bias, step,
            scheme.INT8_MAX if bits == formats.INT8.bits else INT16_MAX,
        )
        statistics = None
        if op.role in ("add", "stream"):
            statistics = self.statistics(op.out, op.version, weight.shape[-2])
        self.graph.ops.append(
            QLinear(
                op.name,
                op.x.tensor,
                op.out,
                part.weight,
                part.requant,
                norm=x.norm,
                table=table,
                add=op.role == "add",
                statistics=statistics,
                rows=op.x.rows,
                task=op.task,
            )
        )
        if op.role != "add":
            self.graph.tensors[op.out] = QTensor(
                op.out, rows, weight.shape[-2], bits, scale, zero_point, offset, copies
            )
        size = op.weight.shape[-2] * op.weight.shape[-1]
        self.graph.macs[op.name] = 0 if op.identity else rows * size

    def _columns(
        self, name: str, x: Source, weight: Float, bias: Float, step: float | Float, reach: int
    ) -> Columns:
        """Integers of a layer, or of one for each task, from real weights to an output ``step``."""
        shape = weight.shape
        each = np.broadcast_to(np.asarray(step, np.float64), shape[:-1])
        part = columns(
            (weight * x.step).reshape(-1, shape[-1]),
            bias.reshape(-1),
            each.reshape(-1),
            moments=x.moments,
            zero_point=x.zero_point,
            reach=reach,
            requant_bits=self.arch.requant_bits,
            what=name,
        )
        requant = replace(
            part.requant,
            multiplier=np.reshape(part.requant.multiplier, shape[:-1]),
            bias=np.reshape(part.requant.bias, shape[:-1]),
        )
        return Columns(part.weight.reshape(shape), requant, part.step.reshape(shape[:-1]))

    def _hidden(self, op: LinearOp, weight: Float, bias: Float) -> Hidden:
        assert op.kind is not None
        stats = self.stats[Request(op.before, op.x.rows)]
        importance = np.zeros(op.weight.shape[-2])
        for reader in self.linears():
            if reader.x.tensor == op.out:
                importance += np.sum(reader.weight**2, axis=tuple(range(reader.weight.ndim - 1)))
        if not importance.any():
            importance += 1
        return hidden(op.kind, weight, bias, stats.rows, stats.high, importance)

    def _experts(self, op: ExpertsOp) -> None:
        x, graph, dim = self.operand(op.x), self.graph, op.w2.shape[1]
        assert x.norm is not None
        epsilon = op.x.norm.epsilon if op.x.norm else None
        both = self.stats[Request(op.x.value, None, epsilon, op.scores)].rows
        rows, scores = np.split(both, [len(x.step)], axis=1)
        count, pairs = graph.tensors[op.x.tensor].rows, []
        statistics = self.statistics(op.out, op.version, dim)
        for number, own in enumerate(own_rows(rows, scores, op.k)):
            q = x.quantise(own)
            real = q * x.step + x.offset
            before = real @ op.w1[number].T + op.b1[number]
            importance = np.sum(op.w2[number] ** 2, axis=0)
            units = hidden(
                op.kind, op.w1[number], op.b1[number] + op.w1[number] @ x.offset, before,
                before.max(axis=0), importance,
            )
            inner = QTensor(
                f"{op.name}.hidden[{number}]", count, len(units.weight), 8, units.scale,
                units.zero_point, units.offset, units.copies,
            )
            graph.tensors[inner.name] = inner
            first = self._columns(
                f"{op.name}.fc1[{number}]", replace(x, moments=Moments(q)), units.weight,
                units.bias, units.step_in, scheme.INT8_MAX,
            )
            middle = source(inner, Moments(units.codes.astype(np.float32) - inner.zero_point))
            weight = op.w2[number][:, middle.channels]
            second = self._columns(
                f"{op.name}.fc2[{number}]", middle, weight, op.b2[number] + weight @ middle.offset,
                self.steps[op.out], INT16_MAX,
            )
            pairs.append((
                QLinear(f"{op.name}.fc1", op.x.tensor, inner.name, first.weight, first.requant,
                        norm=x.norm, table=units.table),
                QLinear(f"{op.name}.fc2", inner.name, op.out, second.weight, second.requant,
                        add=True, statistics=statistics),
            ))
        graph.tensors[op.out] = QTensor(
            op.out, count, dim, formats.RESIDUAL_BITS, self.steps[op.out]
        )
        for part, size in (("fc1", op.w1[0].size), ("fc2", op.w2[0].size)):
            graph.macs[f"{op.name}.{part}"] = count * op.k * size
        graph.ops.append(QExperts(
            op.name, op.x.tensor, op.logits, op.residual, op.out, op.k, op.normalize, tuple(pairs),
            statistics, asked(scores, op.k, count),
        ))

    def _byte_format(self, op: LinearOp) -> tuple[float | Float, float | Float]:
        """Step and offset of an int8 result, by what its readers can absorb."""
        stats = self.stats[Request(op.value, op.x.rows)]
        attention = [a for a in self.plan.ops if isinstance(a, AttentionOp)]
        matched = any(op.out in (a.q, a.k) for a in attention)
        users = [r for r in self.plan.ops if any(name == op.out for name, _ in reads(r))]
        pooled = any(isinstance(user, PoolOp) for user in users)
        # A constant in all keys moves all logits of a query alike: softmax does not see it.  The
        # weights of all values add up to one, and linear readers take a constant into their bias.
        # Only queries, and what becomes a stream, must keep theirs.
        keeps = pooled or any(op.out == a.q for a in attention)
        offset: float | Float = 0.0 if keeps else stats.mean
        peak = np.maximum(stats.high - offset, offset - stats.low)
        if matched or pooled:
            return scheme.tensor_step(stats.rows - offset, float(peak.max())), offset
        return scheme.channel_steps(stats.rows - offset, peak), offset

    def _attention(self, op: AttentionOp) -> None:
        tensors = self.graph.tensors
        q, k, v = tensors[op.q], tensors[op.k], tensors[op.v]
        dim = q.channels // op.heads
        factor = float(q.scale) * float(k.scale) * op.scale * np.log2(np.e)
        logits = single(
            factor * 2.0**formats.LOGIT_FRAC,
            scheme.INT8_MAX,
            dim * scheme.INT8_MAX**2,
            self.arch.requant_bits,
            op.name,
        )
        heads = weigh(op, v, self.stats, self.arch.requant_bits)
        self.graph.ops.append(QAttention(
            op.name, op.q, op.k, op.v, op.out, op.heads, logits, heads.weighed, heads.balance
        ))
        tensors[op.out] = QTensor(op.out, q.rows, v.channels, 8, heads.scale, offset=heads.offset)
        done = op.heads - sum(len(w.heads) - w.k for w in op.weighed)
        self.graph.macs[op.name] = 2 * q.rows * k.rows * dim * done

    def _pool(self, op: PoolOp) -> None:
        x, step = self.graph.tensors[op.x], self.steps[op.out]
        count = op.stop - op.start
        factor = float(x.scale) / (count * step)
        # An accumulator finer than the result, whatever the number of rows.
        weight = int(np.clip(np.ceil(factor), 1, scheme.INT8_MAX))
        requant = single(
            factor / weight,
            INT16_MAX,
            weight * count * scheme.INT8_MAX,
            self.arch.requant_bits,
            op.name,
        )
        self.graph.ops.append(
            QPool(
                op.name,
                op.x,
                op.out,
                op.start,
                op.stop,
                weight,
                requant,
                self.statistics(op.out, op.version, x.channels),
            )
        )
        self.graph.tensors[op.out] = QTensor(op.out, 1, x.channels, formats.RESIDUAL_BITS, step)
        self.graph.macs[op.name] = count * x.channels


def _output_step(stats: Stats) -> float:
    """Power-of-two step at which 16 bits hold what was seen, with a margin."""
    peak = max(float(stats.peak.max()) * OUTPUT_MARGIN, 1e-6)
    return 2.0 ** int(np.ceil(np.log2(peak / INT16_MAX)))
