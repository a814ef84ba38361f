"""Choice of every scale: residual step, LayerNorm gains, int8 ranges.

All of them minimise a measured error over sampled rows; the reasons are in ``docs/numerics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats

Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]
#: Step and zero point of an int8 tensor.
Format = tuple[float, int]

INT8_MAX = 127
_RESIDUAL_MAX = (1 << (formats.RESIDUAL_BITS - 1)) - 1
#: Variance of rounding to steps of one.
_ROUNDING = 1 / 12
#: The residual step is no finer than this, or for a stream of small values than this part of the
#: largest: beyond, nothing is gained and multipliers overflow.
_FINEST_STEP, _FINEST_PART = 2.0**-12, 2.0**-12
#: Exponents tried below the step at which nothing saturates.
_STEP_SEARCH = 4

#: Strengths of per-channel equalisation tried for LayerNorm (1: every channel fills the range).
_ALPHAS = (0.25, 0.5, 0.75, 1.0)
#: Clip factors tried: ranges relative to the largest magnitude seen.
_CLIPS = np.linspace(1.0, 0.3, 29)
_GAIN_CLIPS = (0.85, 1.0, 1.15, 1.35)
_PRODUCT_CLIPS = np.geomspace(1.0, 0.1, 36)
#: No byte exceeds the normalised residual's range behind this shift.
_PRODUCT_SHIFT = formats.INT8.bits + formats.MEAN_FRAC + formats.XHAT_FRAC - formats.XNORM_BITS
#: Channels whose samples stay in a cache of the processor while clips are tried.
_CHANNELS = 32
#: Rows used where a trial costs a matrix product.
_TRIAL_ROWS = 400
_SEED = 31
#: Variance of a row, in parts of the mean square of all, below which it has none.
_LEAST_SPREAD = 1e-6


# Residual stream ---------------------------------------------------------------------------
@dataclass(frozen=True)
class StreamRead:
    """Sampled rows of one version of a stream that something reads, after ``additions``.

    ``finest``: no finer step suits the reader.
    """

    rows: Rows
    peak: float
    additions: int
    finest: float = 0.0


def residual_step(reads: Sequence[StreamRead]) -> float:
    """Power-of-two step with the least error as LayerNorm sees it: relative to each row's spread.

    Rounding errors add up over the additions; saturation may clip single outliers, because a row
    with an outlier is dominated by it.
    """
    peak = max(1e-6, *(read.peak for read in reads))
    safe = int(np.ceil(np.log2(peak / _RESIDUAL_MAX)))
    steps = [2.0**exponent for exponent in range(safe, safe - _STEP_SEARCH, -1)]
    costs = np.zeros(len(steps))
    for read in reads:
        size = np.abs(read.rows.astype(np.float64))
        # a row without any, as all are of one channel, must not outweigh the others
        least = max(1e-12, _LEAST_SPREAD * float(np.mean(size**2)))
        spread = np.maximum(read.rows.astype(np.float64).var(axis=1), least)
        for number, step in enumerate(steps):
            clipped = np.maximum(size - _RESIDUAL_MAX * step, 0.0)
            error = np.mean(np.square(clipped, out=clipped), axis=1)
            noise = (read.additions + 1) * _ROUNDING * step**2
            costs[number] += float(np.mean((error + noise) / spread))
    best = steps[int(np.argmin(costs))]
    finest = max(min(_FINEST_STEP, peak * _FINEST_PART), *(read.finest for read in reads))
    return max(best, 2.0 ** int(np.ceil(np.log2(finest))))


# Operand transforms ------------------------------------------------------------------------
def gains(rows: Rows, peak: Rows, matrix: Float, most: float = INT8_MAX) -> Float:
    """Gain of each channel of a normalised operand: multiples of ``2**-GAIN_FRAC``.

    Equalises the channels' ranges with the strength, and clips them with the factor, that give
    the least error behind ``matrix``, rounding of its weights included.

    Parameters
    ----------
    rows : ``[S, D]``, normalised, before gamma
    peak : ``[D]``, largest magnitudes
    matrix : ``[out, D]``, all weights that read the operand, gamma included
    most : the largest integer of these weights, if each were rounded by itself
    """
    x = subsample(np.asarray(rows, np.float32))
    gram, size = (matrix.T @ matrix).astype(np.float32), np.abs(matrix)
    # Each channel's own best range, outliers clipped.
    peak = np.maximum(INT8_MAX * channel_steps(rows, peak), 1e-3)
    weight = np.maximum(np.sqrt(np.diag(gram).astype(np.float64)), 1e-12)
    best, least = np.ones(len(peak)), np.inf
    unit = 2.0**-formats.GAIN_FRAC
    top = (1 << formats.GAIN_BITS) - 1
    for alpha in _ALPHAS:
        # alpha = 0: steps such that all channels weigh alike behind the matrix;
        # alpha = 1: steps such that all channels fill the range.
        reach = np.max(peak * weight)
        base = INT8_MAX * weight / ((peak * weight) ** alpha * reach ** (1 - alpha))
        for clip in _GAIN_CLIPS:
            gain = np.clip(np.rint(base * clip / unit), 1, top) * unit
            q = np.clip(np.rint(x * gain.astype(np.float32)), -128, INT8_MAX)
            error = x - q / gain.astype(np.float32)
            steps = (size / gain).max(axis=1) / most
            energy = float(np.mean(q.astype(np.float64) ** 2, axis=0).sum())
            cost = float(np.sum((error @ gram) * error)) / len(x)
            cost += _ROUNDING * float(np.sum(steps**2)) * energy
            if cost < least:
                best, least = gain, cost
    return best


def subsample(rows: Rows) -> Rows:
    """At most about ``_TRIAL_ROWS`` of the rows, evenly spread.

    Of every stretch any one: equal steps through images of as many rows would see the same tokens
    of each, and never the others.
    """
    stretch = len(rows) // _TRIAL_ROWS
    if stretch < 2:
        return rows
    starts = np.arange(len(rows) // stretch) * stretch
    return rows[starts + np.random.default_rng(_SEED).integers(0, stretch, len(starts))]


# int8 tensors ------------------------------------------------------------------------------
def tensor_step(rows: Rows, peak: float) -> float:
    """Step of a symmetric int8 tensor with the least mean square error."""
    x = np.abs(subsample(np.asarray(rows, np.float32))).reshape(-1)
    peak = max(float(peak), 1e-9)
    best, least = peak / INT8_MAX, np.inf
    for clip in _CLIPS:
        step = peak * clip / INT8_MAX
        error = x - step * np.minimum(np.rint(x / step), INT8_MAX)
        cost = float(np.dot(error, error))
        if cost < least:
            best, least = step, cost
    return best


def channel_steps(rows: Rows, peak: Rows) -> Float:
    """Step of each channel of a symmetric int8 tensor with the least mean square error."""
    top = np.maximum(np.asarray(peak, np.float64), float(np.max(peak)) * 2.0**-10 + 1e-9)
    best, least = top / INT8_MAX, np.full(len(top), np.inf)
    for start in range(0, len(top), _CHANNELS):
        some = slice(start, start + _CHANNELS)
        x = np.abs(np.asarray(rows[:, some].T, np.float32, order="C"))
        error = np.empty_like(x)
        for clip in _CLIPS:
            step = top[some] * clip / INT8_MAX
            narrow = step.astype(np.float32)[:, None]
            np.rint(np.divide(x, narrow, out=error), out=error)
            np.multiply(np.minimum(error, INT8_MAX, out=error), narrow, out=error)
            np.subtract(x, error, out=error)
            cost = np.einsum("cr,cr->c", error, error)
            best[some] = np.where(cost < least[some], step, best[some])
            least[some] = np.minimum(cost, least[some])
    return best


def product_scale(rows: Rows, weight: Float) -> tuple[int, int]:
    """``(shift, mantissa)`` that bring products of bytes to bytes with the least error.

    Parameters
    ----------
    rows : ``[S, D]``, products in units of their own steps
    weight : ``[D]``, how much a square error of each channel counts
    """
    x = np.abs(subsample(np.asarray(rows, np.float32)))
    peak = max(float(x.max()), 1.0)
    best, least = 1.0, np.inf
    for clip in _PRODUCT_CLIPS:
        scale = INT8_MAX / (peak * clip)
        error = (x - np.minimum(np.rint(x * scale), INT8_MAX) / scale) ** 2
        cost = float(np.dot(error.sum(axis=0), weight))
        if cost < least:
            best, least = scale, cost
    one = 1 << formats.RSQRT_FRAC
    shift = max(_PRODUCT_SHIFT, -int(np.floor(np.log2(best))))
    return shift, int(np.clip(round(best * one * 2.0**shift), 1, 2 * one - 1))
