"""Plan and statistics to integers, op by op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig

from . import scheme
from .calibrate import Progress, Request, Stats
from .evaluate import quantise_input
from .graph import (
    Float,
    Norm,
    QAttention,
    QConstant,
    QInput,
    QLinear,
    QPool,
    QTensor,
    QuantGraph,
    Statistics,
)
from .plan import AttentionOp, LinearOp, Operand, PatchOp, Plan, PoolOp, reads, unsupported
from .requant import columns, single
from .rounding import Moments

_INT16_MAX = (1 << (formats.RESIDUAL_BITS - 1)) - 1
_EPSILON_MAX = (1 << 16) - 1
#: Room above the largest result seen, for outputs of the network.
_OUTPUT_MARGIN = 1.5
#: Images that the statistics of the 8-bit pixels are taken from.
_PIXEL_IMAGES = 16
#: x-hat of a fixed normalisation stays below ``2**_SCALE_LOG`` (the normalised residual's range).
_SCALE_LOG = formats.XNORM_BITS - 1 - formats.XHAT_FRAC


@dataclass(frozen=True)
class _Input:
    """A quantised operand: weights turn ``q - zero_point`` into reals."""

    #: Real value of a step of each channel.
    step: Float
    #: Real value that a zero stands for (moves into the bias).
    offset: Float
    #: Of ``q - zero_point``.
    moments: Moments
    #: Channels of the operand in terms of the float tensor's channels.
    channels: npt.NDArray[np.int64]
    zero_point: int = 0
    norm: Norm | None = None


class Assembler:
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
        self.plan, self.stats, self.arch = plan, stats, arch
        self.images = images
        self.graph = QuantGraph(plan.name, spec, outputs=dict(plan.outputs))
        self.steps: dict[str, float] = {}
        #: Sampled results of activations.
        self.codes: dict[str, npt.NDArray[np.int8]] = {}
        #: The operand of the latest linear op; its neighbours often read the same.
        self.inputs: dict[object, _Input] = {}
        self._stream_steps()
        for i, op in enumerate(plan.ops):
            if isinstance(op, PatchOp):
                self._patch(op)
            elif isinstance(op, LinearOp):
                self._linear(op)
            elif isinstance(op, AttentionOp):
                self._attention(op)
            else:
                self._pool(op)
            self.graph.values[op.name] = op.value
            if progress is not None:
                progress("quantising", (i + 1) / len(plan.ops))

    # Streams -------------------------------------------------------------------------------
    def _stream_steps(self) -> None:
        """One step for all versions of each int16 tensor that is read or added to."""
        seen: dict[str, list[scheme.StreamRead]] = {}
        for op in self._linears():
            if op.x.version is not None:
                stats = self.stats[Request(op.x.value, op.x.rows)]
                seen.setdefault(op.x.tensor, []).append(
                    scheme.StreamRead(stats.rows, float(stats.peak.max()), op.x.version)
                )
        for op in self.plan.ops:
            if op.out in self.plan.outputs.values() and not isinstance(op, AttentionOp):
                rows = op.x.rows if isinstance(op, LinearOp) else None
                stats = self.stats[Request(op.value, rows)]
                seen.setdefault(op.out, []).append(
                    scheme.StreamRead(
                        stats.rows, _OUTPUT_MARGIN * float(stats.peak.max()), op.version
                    )
                )
        self.steps = {name: scheme.residual_step(parts) for name, parts in seen.items()}

    def _statistics(self, tensor: str, version: int, dim: int) -> Statistics | None:
        """What must be gathered when ``version`` of a stream is written."""
        norms = [
            op.x.norm
            for op in self._linears()
            if (op.x.tensor, op.x.version) == (tensor, version) and op.x.norm is not None
        ]
        if not norms:
            return None
        for norm in norms:
            if norm.epsilon != norms[0].epsilon:
                raise unsupported(
                    norm.node,
                    f"it reads the same rows as {norms[0].node!r} with another epsilon",
                )
        unit = self.steps[tensor] * 2.0**-formats.MEAN_FRAC
        mantissa, shift = formats.inv_dim(dim)
        epsilon = min(_EPSILON_MAX, round(norms[0].epsilon / unit**2))
        return Statistics(mantissa, shift, epsilon)

    def _linears(self) -> list[LinearOp]:
        return [op for op in self.plan.ops if isinstance(op, LinearOp)]

    # Operands ------------------------------------------------------------------------------
    def _input(self, x: Operand) -> _Input:
        key = _key(x)
        if key not in self.inputs:
            make = self._byte_input if x.version is None else self._wide_input
            self.inputs = {key: make(x)}
        return self.inputs[key]

    def _byte_input(self, x: Operand) -> _Input:
        tensor = self.graph.tensors[x.tensor]
        step = np.broadcast_to(np.asarray(tensor.scale, np.float64), (tensor.channels,))
        offset = np.broadcast_to(np.asarray(tensor.offset, np.float64), (tensor.channels,))
        if x.tensor in self.codes:
            q = self.codes[x.tensor].astype(np.float32) - tensor.zero_point
        else:
            rows = self.stats[Request(x.value, x.rows)].rows
            q = np.clip((rows - offset) / step, -scheme.INT8_MAX, scheme.INT8_MAX)
        base = np.arange(tensor.channels - len(tensor.copies))
        channels = np.concatenate([base, np.array(tensor.copies, np.int64)])
        return _Input(step, offset, Moments(q), channels, tensor.zero_point)

    def _wide_input(self, x: Operand) -> _Input:
        """An int16 operand: LayerNorm, or a fixed normalisation, with a gain per channel."""
        step = self.steps[x.tensor]
        plain = self.stats[Request(x.value, x.rows)]
        if x.norm is not None:
            stats = self.stats[Request(x.value, x.rows, x.norm.epsilon)]
            factor, offset = x.norm.gamma, x.norm.beta
            rows, peak, shift, mantissa = stats.rows, stats.peak, 0, 0
        else:
            # x-hat = x / unit, a power of two that keeps it in range.
            top = min(float(plain.peak.max()) / step, _INT16_MAX)
            shift = max(0, formats.MEAN_FRAC - _SCALE_LOG + int(np.ceil(np.log2(top + 1))))
            unit = step * 2.0 ** (shift - formats.MEAN_FRAC)
            factor, offset = np.full(len(plain.peak), unit), np.zeros(len(plain.peak))
            rows, peak, mantissa = plain.rows / unit, plain.peak / unit, 1 << formats.RSQRT_FRAC
        gain = self._gain(x, rows, peak, factor)
        q = np.clip(np.rint(rows * gain), -128, scheme.INT8_MAX)
        units = np.rint(gain * (1 << formats.GAIN_FRAC)).astype(np.uint8)
        norm = Norm(units, x.norm is not None, shift, mantissa)
        return _Input(factor / gain, offset, Moments(q), np.arange(len(gain)), norm=norm)

    def _gain(
        self,
        x: Operand,
        rows: npt.NDArray[np.floating],
        peak: npt.NDArray[np.floating],
        factor: Float,
    ) -> Float:
        thin = scheme.thin(rows)
        readers = []
        for op in self._linears():
            if _key(op.x) == _key(x):
                matrix = op.weight * factor
                # All readers count alike, whatever the size of their results.
                readers.append(matrix / max(float(np.std(thin @ matrix.T)), 1e-9))
        return scheme.gains(rows, peak, np.concatenate(readers))

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
            reach=_INT16_MAX,
            requant_bits=self.arch.requant_bits,
            what=op.name,
        )
        # The bias goes into the constant: the prefix rows, products of zeros, must not have it.
        value = op.position.copy()
        value[: len(op.prefix)] += op.prefix
        value[len(op.prefix) :] += part.requant.bias * part.step
        constant = np.clip(np.rint(value / step), -_INT16_MAX - 1, _INT16_MAX).astype(np.int16)
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
                statistics=self._statistics(op.out, 0, dim),
            )
        )
        graph.macs[op.name] = (total - len(op.prefix)) * weight.size

    def _linear(self, op: LinearOp) -> None:
        x = self._input(op.x)
        weight = op.weight[:, x.channels]
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
                chosen = self._activation(op)
                extra = np.repeat(np.arange(len(weight)), chosen.copies - 1)
                copies, table = tuple(int(i) for i in extra), chosen.table
                level = np.zeros(len(weight) + len(extra))
                level[len(weight) :] = chosen.level(
                    np.concatenate([np.arange(1, n) for n in chosen.copies])
                )
                sources = np.concatenate([np.arange(len(weight)), extra])
                weight, bias = weight[sources], bias[sources] - level - chosen.centre
                samples = self.stats[Request(op.before, op.x.rows)].rows[:, sources] - level
                self.codes[op.out] = chosen.codes(samples)
                step, scale, zero_point = chosen.step_in, chosen.step_out, chosen.zero_point
                offset = np.zeros(len(weight))
                offset[len(op.weight) :] = -chosen.rest
            else:
                step, offset = self._byte_format(op)
                bias, scale = bias - offset, step
        elif op.role == "output":
            step = scale = _output_step(self.stats[Request(op.value, op.x.rows)])
        else:
            step = scale = self.steps[op.out]
        part = columns(
            weight * x.step,
            bias,
            step,
            moments=x.moments,
            zero_point=x.zero_point,
            reach=scheme.INT8_MAX if bits == formats.INT8.bits else _INT16_MAX,
            requant_bits=self.arch.requant_bits,
            what=op.name,
        )
        statistics = None
        if op.role in ("add", "stream"):
            statistics = self._statistics(op.out, op.version, len(weight))
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
            )
        )
        if op.role != "add":
            self.graph.tensors[op.out] = QTensor(
                op.out, rows, len(weight), bits, scale, zero_point, offset, copies
            )
        self.graph.macs[op.name] = 0 if op.identity else rows * op.weight.size

    def _activation(self, op: LinearOp) -> scheme.Activation:
        assert op.kind is not None
        stats = self.stats[Request(op.before, op.x.rows)]
        importance = np.zeros(len(op.weight))
        for reader in self._linears():
            if reader.x.tensor == op.out:
                importance += np.sum(reader.weight**2, axis=0)
        if not importance.any():
            importance += 1
        return scheme.activation(op.kind, stats.rows, stats.high, importance)

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
        self.graph.ops.append(QAttention(op.name, op.q, op.k, op.v, op.out, op.heads, logits))
        tensors[op.out] = QTensor(op.out, q.rows, v.channels, 8, v.scale, offset=v.offset)
        self.graph.macs[op.name] = 2 * q.rows * k.rows * q.channels

    def _pool(self, op: PoolOp) -> None:
        x, step = self.graph.tensors[op.x], self.steps[op.out]
        count = op.stop - op.start
        factor = float(x.scale) / (count * step)
        # An accumulator finer than the result, whatever the number of rows.
        weight = int(np.clip(np.ceil(factor), 1, scheme.INT8_MAX))
        requant = single(
            factor / weight,
            _INT16_MAX,
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
                self._statistics(op.out, op.version, x.channels),
            )
        )
        self.graph.tensors[op.out] = QTensor(op.out, 1, x.channels, formats.RESIDUAL_BITS, step)
        self.graph.macs[op.name] = count * x.channels


def _key(x: Operand) -> tuple[object, ...]:
    """Operands with equal keys are the same rows through the same normalisation."""
    return x.tensor, x.version, x.rows, x.norm.node if x.norm else None


def _output_step(stats: Stats) -> float:
    """Power-of-two step at which 16 bits hold what was seen, with a margin."""
    peak = max(float(stats.peak.max()) * _OUTPUT_MARGIN, 1e-6)
    return 2.0 ** int(np.ceil(np.log2(peak / _INT16_MAX)))
