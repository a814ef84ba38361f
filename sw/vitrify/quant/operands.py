"""What matrix products stream: steps of the streams, gains, statistics of the integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.errors import ModelError

from . import scheme
from .calibrate import Request, Stats
from .graph import QuantGraph
from .plan import ByteNeeds, Operand, Plan, ReadNorm
from .rounding import GRIDS, Grid, Moments, Separate
from .tensors import Float, Norm, QTensor, Statistics, Times
from .wanted import WIDE

#: Noise over signal, -17 dB, of a normalisation whose epsilon makes the steps of its stream coarse;
#: of operations of eight bits the tests want -20.
_MOST_NOISE = 0.02
INT16_MAX = (1 << (formats.RESIDUAL_BITS - 1)) - 1
#: Room above the largest result seen, for outputs of the network.
OUTPUT_MARGIN = 1.5
#: x-hat of a fixed normalisation stays below ``2**_SCALE_LOG`` (the normalised residual's range).
_SCALE_LOG = formats.XNORM_BITS - 1 - formats.XHAT_FRAC


@dataclass(frozen=True)
class Source:
    """A quantised operand: weights turn ``q - zero_point`` into reals."""

    #: Real value of a step of each channel.
    step: Float
    #: Real value that a zero stands for (moves into the bias).
    offset: Float
    #: Of ``q - zero_point``.
    moments: Moments | Separate
    #: Channels of the operand in terms of the float tensor's channels.
    channels: npt.NDArray[np.int64]
    zero_point: int = 0
    norm: Norm | None = None
    times: Times | None = None
    #: int16 operands: integers of a (normalised) real value.
    gain: Float | None = None

    def quantise(self, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """The integers that ``rows [S, D]`` of the operand, normalised if it is, become."""
        assert self.gain is not None
        return _codes(rows, self.gain)


class Operands:
    """The operands of a plan's ops, each quantised when it is asked for.

    Members
    -------
    steps : of every int16 tensor that is read or added to
    codes : sampled results of activations, by tensor
    grids : what weights may be, by their bits
    """

    def __init__(
        self, plan: Plan, stats: Mapping[Request, Stats], graph: QuantGraph,
        grids: Mapping[int, Grid] = GRIDS,
    ) -> None:
        self.plan, self.stats, self.graph, self.grids = plan, stats, graph, grids
        self.steps: dict[str, float] = {}
        self.codes: dict[str, npt.NDArray[np.int8]] = {}
        #: The latest operand; the neighbours of its op often read the same.
        self._latest: dict[object, Source] = {}
        self._stream_steps()

    # Streams -------------------------------------------------------------------------------
    def _stream_steps(self) -> None:
        """One step for all versions of each int16 tensor that is read or added to."""
        seen: dict[str, list[scheme.StreamRead]] = {}
        for product in self.plan.products():
            x = product.x
            if x.version is not None:
                stats = self.stats[Request(x.value, x.rows)]
                finest = 0.0 if x.norm is None else x.norm.normaliser.finest_step
                seen.setdefault(self.root(x.tensor), []).append(
                    scheme.StreamRead(stats.rows, float(stats.peak.max()), x.version, finest)
                )
        for op in self.plan.ops:
            if op.out in self.plan.outputs.values() and op.value:
                stats = self.stats[op.result()]
                seen.setdefault(self.root(op.out), []).append(scheme.StreamRead(
                    stats.rows, OUTPUT_MARGIN * float(stats.peak.max()), op.version
                ))
        steps = {name: scheme.residual_step(parts) for name, parts in seen.items()}
        for product in self.plan.products():
            x = product.x
            if x.norm is not None and x.version is not None:
                rows, step = self.stats[Request(x.value, x.rows)].rows, steps[self.root(x.tensor)]
                # steps are powers of two: that is the one its epsilon asked for
                if step < 2 * x.norm.normaliser.finest_step:
                    check_noise(x.norm, rows, step)
        for op in self.plan.ops:
            if self.root(op.out) in steps:
                self.steps[op.out] = steps[self.root(op.out)]

    def root(self, tensor: str) -> str:
        """The stream that ``tensor`` continues, and shares its step with."""
        return self.plan.roots.get(tensor, tensor)

    def statistics(self, tensor: str, version: int, dim: int) -> Statistics | None:
        """What must be gathered when ``version`` of a stream is written."""
        norms = [
            product.x.norm for product in self.plan.products()
            if (product.x.tensor, product.x.version) == (tensor, version)
            and product.x.norm is not None
        ]
        if not norms:
            return None
        (normaliser,) = {norm.normaliser for norm in norms}
        return normaliser.statistics(self.steps[tensor], dim)

    def importance(self, tensor: str) -> Float | None:
        """How much the error of each channel of a tensor counts; ``None`` if no weight reads it."""
        read = [p.weight for p in self.plan.products() if p.x.tensor == tensor]
        squares = [np.sum(w**2, axis=tuple(range(w.ndim - 1))) for w in read]
        total = np.sum(squares, axis=0) if squares else np.zeros(0)
        return total if total.any() else None

    def needs(self, tensor: str) -> ByteNeeds:
        """What any reader of an int8 tensor cannot absorb of its format."""
        readers = self.plan.readers(tensor)
        needs = [reader.needs(tensor) for reader in readers]
        behind = [self.needs(reader.out) for reader in readers if reader.passes_on(tensor)]
        return ByteNeeds(
            one_step=any(n.one_step for n in needs + behind),
            zero=any(n.zero for n in needs + behind),
            symmetric=any(n.symmetric for n in needs),
            whole=any(n.whole for n in needs),
        )

    # Operands ------------------------------------------------------------------------------
    def operand(self, x: Operand, bits: int = WIDE) -> Source:
        """``x``, quantised; its tensor and those that it is scaled with must be there.

        ``bits`` is that of the weights that read it.
        """
        key = _key(x), bits
        if key not in self._latest:
            make = self._byte_input if x.version is None else self._wide_input
            make = self._product_input if x.times else make
            self._latest = {key: make(x, bits)}
        return self._latest[key]

    def _byte_input(self, x: Operand, _bits: int) -> Source:
        tensor = self.graph.tensors[x.tensor]
        step = np.broadcast_to(np.asarray(tensor.scale, np.float64), (tensor.channels,))
        offset = np.broadcast_to(np.asarray(tensor.offset, np.float64), (tensor.channels,))
        if x.tensor in self.codes:
            q = self.codes[x.tensor].astype(np.float32) - tensor.zero_point
        else:
            rows = self.stats[Request(x.value, x.rows)].rows
            q = rows - offset
            np.clip(np.divide(q, step, out=q), -scheme.INT8_MAX, scheme.INT8_MAX, out=q)
        return source(tensor, Moments(q))

    def _product_input(self, x: Operand, _bits: int) -> Source:
        """Two int8 operands multiplied: a step of each channel, scaled by one number for all."""
        assert x.times is not None
        factors = [self.graph.tensors[name] for name in (x.tensor, x.times)]
        unit = np.ones(factors[0].channels)
        for factor in factors:
            unit = unit * factor.scale
        if x.value:
            rows = self.stats[Request(x.value, x.rows)].rows / unit
        else:
            low, high = (self.codes[name].astype(np.float32) for name in (x.tensor, x.times))
            rows = low * high[np.arange(len(low)) % len(high)]
        weight = sum(
            (np.square(p.weight).sum(axis=tuple(range(p.weight.ndim - 1)))
             for p in self.plan.products() if _key(p.x) == _key(x)), np.zeros(len(unit)),
        )
        shift, mantissa = scheme.product_scale(rows, weight * unit**2)
        scale = mantissa * 2.0 ** -(shift + formats.RSQRT_FRAC)
        q = np.clip(np.rint(rows * scale), -128, scheme.INT8_MAX)
        return Source(
            unit / scale, np.zeros(len(unit)), Moments(q), np.arange(len(unit)),
            times=Times(x.times, shift, mantissa),
        )

    def _wide_input(self, x: Operand, bits: int) -> Source:
        """An int16 operand: LayerNorm, or a fixed normalisation, with a gain per channel."""
        step = self.steps[x.tensor]
        plain = self.stats[Request(x.value, x.rows)]
        if x.norm is not None:
            stats = self.stats[Request(x.value, x.rows, x.norm.normaliser)]
            factor, offset = x.norm.gamma, x.norm.beta
            rows, peak, shift, mantissa = stats.rows, stats.peak, 0, 0
        else:
            # x-hat = x / unit, a power of two that keeps it in range.
            top = min(float(plain.peak.max()) / step, INT16_MAX)
            shift = max(0, formats.MEAN_FRAC - _SCALE_LOG + int(np.ceil(np.log2(top + 1))))
            unit = step * 2.0 ** (shift - formats.MEAN_FRAC)
            factor, offset = np.full(len(plain.peak), unit), np.zeros(len(plain.peak))
            rows, peak, mantissa = plain.rows / unit, plain.peak / unit, 1 << formats.RSQRT_FRAC
        gain = self._gain(x, rows, peak, factor, self.grids[bits].most)
        units = np.rint(gain * (1 << formats.GAIN_FRAC)).astype(np.uint8)
        norm = Norm(units, x.norm is not None, shift, mantissa)
        return Source(
            factor / gain, offset, Moments(_codes(rows, gain)), np.arange(len(gain)), norm=norm,
            gain=gain if x.norm is not None else gain / factor,
        )

    def _gain(
        self,
        x: Operand,
        rows: npt.NDArray[np.floating],
        peak: npt.NDArray[np.floating],
        factor: Float,
        most: float,
    ) -> Float:
        some = scheme.subsample(rows)
        readers = []
        for product in self.plan.products():
            if _key(product.x) == _key(x):
                weight = product.weight
                matrix = weight.reshape(-1, weight.shape[-1]) * factor
                # All readers count alike, whatever the size of their results.
                readers.append(matrix / max(float(np.std(some @ matrix.T)), 1e-9))
        return scheme.gains(rows, peak, np.concatenate(readers), most)


def source(tensor: QTensor, moments: Moments) -> Source:
    """An int8 tensor as an operand."""
    step = np.broadcast_to(np.asarray(tensor.scale, np.float64), (tensor.channels,))
    offset = np.broadcast_to(np.asarray(tensor.offset, np.float64), (tensor.channels,))
    base = np.arange(tensor.channels - len(tensor.copies))
    channels = np.concatenate([base, np.array(tensor.copies, np.int64)])
    return Source(step, offset, moments, channels, tensor.zero_point)


def _key(x: Operand) -> tuple[object, ...]:
    """Operands with equal keys are the same rows through the same normalisation."""
    return x.tensor, x.version, x.rows, x.norm.node if x.norm else None, x.times


def _codes(rows: npt.NDArray[np.floating], gain: Float) -> npt.NDArray[np.floating]:
    return np.clip(np.rint(rows * gain), -128, scheme.INT8_MAX)


def check_noise(norm: ReadNorm, rows: npt.NDArray[np.floating], step: float) -> None:
    """Refuse an epsilon for whose sake ``step`` is too coarse for the rows.

    Raises
    ------
    ModelError
        Naming the normalisation.
    """
    exact = norm.normaliser.apply(rows)
    error = norm.normaliser.apply(np.rint(rows / step) * step) - exact
    if np.sum(error**2) > _MOST_NOISE * np.sum(exact**2):
        raise ModelError(
            f"the epsilon of {norm.node!r} is too large beside the variance of its input, "
            f"{np.median(rows.var(axis=-1)):.3g} in the median: scale that up, and epsilon with "
            f"the square"
        )
