"""Choice of every scale: residual step, LayerNorm gains, int8 ranges, activation windows.

All of them minimise a measured error over sampled rows; the reasons are in ``docs/numerics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.ir import UNARY

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

#: Activations with f(x) → x for large x: their large results may be split over copies of a unit.
SPLITTABLE = frozenset(
    {
        "gelu",
        "gelu_tanh",
        "quick_gelu",
        "silu",
        "relu",
        "leaky_relu",
        "hard_swish",
        "elu",
        "mish",
    }
)
#: A unit is split only if the error of the layer without splitting is this many times larger.
_SPLIT_GAIN = 2.0
#: Units beyond ``_LARGE`` times this quantile of all units' peaks are candidates for splitting.
_USUAL, _LARGE = 0.95, 2.0
#: Most units that are considered for splitting.
_SPLIT_UNITS = 8
#: Copies reach this far beyond the largest value seen.
_SPLIT_MARGIN = 1.1
#: Most copies of a unit: beside units that are all but zero it would need any number.  A layer is
#: then larger by so many channels at most, for each of ``_SPLIT_UNITS``.
_MOST_COPIES = 1024
_BINS = 4096


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
        spread = np.maximum(read.rows.astype(np.float64).var(axis=1), 1e-12)
        size = np.abs(read.rows.astype(np.float64))
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
    """At most about ``_TRIAL_ROWS`` of the rows, evenly spread."""
    return rows[:: max(1, len(rows) // _TRIAL_ROWS)]


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


# Activation tables -------------------------------------------------------------------------
@dataclass(frozen=True)
class Activation:
    """An int8 → int8 table, the steps on both sides, and the units that are split.

    Input ``h ≈ centre + step_in * q``; output ``f(h) ≈ step_out * (q - zero_point)``.
    ``copies[j]`` is the number of units that unit ``j`` becomes; :meth:`level` says where each
    starts.  Behind the first, a copy whose turn has not come gives ``rest``, which does not belong
    to the sum.
    """

    table: npt.NDArray[np.int8]
    centre: float
    step_in: float
    step_out: float
    zero_point: int
    copies: npt.NDArray[np.int64]

    @property
    def rest(self) -> float:
        """Output at the lower end of the window."""
        return self._output(-INT8_MAX)

    def level(self, copy: npt.NDArray[np.int64]) -> Rows:
        """Input at which the ``copy``-th copy (1, 2 …) of a unit starts: what those before give."""
        top = self._output(INT8_MAX)
        return top + (copy - 1.0) * (top - self.rest)

    def codes(self, rows: Rows) -> npt.NDArray[np.int8]:
        """Output codes of float inputs, as the core computes them."""
        index = rows - self.centre
        np.rint(np.divide(index, self.step_in, out=index), out=index)
        np.clip(index, -INT8_MAX, INT8_MAX, out=index)
        return self.table[index.astype(np.int16) & 0xFF]

    def _output(self, code: int) -> float:
        return (int(self.table[code & 0xFF]) - self.zero_point) * self.step_out


def kept_activation(
    kind: str, rows: Rows, weight: Rows, before: Format | None, behind: Format | None,
    symmetric: bool = False,
) -> Activation:
    """Table of an activation whose input or result, or both, have a format already.

    Parameters
    ----------
    rows, weight, symmetric : as for :func:`activation`; no unit is split
    before, behind : step and zero point
    """
    rows = subsample(rows)
    if before is None:
        found = _window(kind, rows, weight, symmetric, behind)
    else:
        step, zero = before
        window = (step * (-INT8_MAX - zero), step * (INT8_MAX - zero))
        low, high = min(float(rows.min()), window[0]), max(float(rows.max()), window[1])
        found = _trial(kind, window, *_seen(kind, rows, weight, low, high), symmetric, behind)
    return replace(found.activation, copies=np.ones(rows.shape[1], np.int64))


def activation(
    kind: str, rows: Rows, peak: Rows, weight: Rows, symmetric: bool = False
) -> Activation:
    """Window and table of an activation, large units split where that helps.

    Parameters
    ----------
    rows : ``[S, D]``, float inputs
    peak : ``[D]``, largest input of each unit
    weight : ``[D]``, how much the error of a unit's output counts
    symmetric : the output has zero point 0, and no unit is split
    """
    units = len(peak)
    rows = subsample(rows)
    order = np.argsort(-np.asarray(peak))
    usual = float(np.quantile(peak, _USUAL))
    large = int(np.sum(np.asarray(peak) > _LARGE * max(usual, 0.0)))
    limit = min(_SPLIT_UNITS, large, units - 1) if kind in SPLITTABLE and not symmetric else 0
    trials = []
    for count in range(limit + 1):
        rest = np.sort(order[count:])
        trials.append(_window(kind, rows[:, rest], weight[rest], symmetric))
    reach = _SPLIT_MARGIN * float(np.max(peak))
    costs = np.array([
        trial.cost if number == 0 or reach <= _MOST_COPIES * trial.top else np.inf
        for number, trial in enumerate(trials)
    ])
    # The fewest units whose splitting leaves an error close to the best.
    count = int(np.argmax(costs <= _SPLIT_GAIN * costs.min()))
    window = trials[count]
    copies = np.ones(units, np.int64)
    for unit in order[:count]:
        copies[unit] = max(1, int(np.ceil(peak[unit] * _SPLIT_MARGIN / window.top)))
    return replace(window.activation, copies=copies)


@dataclass(frozen=True)
class _Window:
    cost: float
    low: float
    high: float
    #: Largest output.
    top: float
    activation: Activation


def _window(
    kind: str, rows: Rows, weight: Rows, symmetric: bool, behind: Format | None = None
) -> _Window:
    """The input range with the least weighted error of the function's value."""
    low, high = float(rows.min()), float(rows.max())
    # of float32 so many bins can be told apart
    least = max(1e-6, _BINS * float(np.spacing(np.float32(max(-low, high)))))
    if high - low < least:
        high = low + least
    x, mass, exact = _seen(kind, rows, weight, low, high)
    lows = np.unique(low * np.array([1, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15]))
    highs = np.unique(high * np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]))
    best: _Window | None = None
    for _ in range(2):
        for a in lows:
            for b in highs:
                if b - a < 0.05 * (high - low):
                    continue
                trial = _trial(kind, (float(a), float(b)), x, mass, exact, symmetric, behind)
                if best is None or trial.cost < best.cost:
                    best = trial
        assert best is not None
        lows, highs = best.low * np.linspace(0.85, 1.15, 7), best.high * np.linspace(0.85, 1.15, 7)
    assert best is not None
    return best


def _seen(
    kind: str, rows: Rows, weight: Rows, low: float, high: float
) -> tuple[Float, Float, Float]:
    """Inputs between ``low`` and ``high``, how much each counts, and the function's values."""
    mass, edges = np.histogram(
        rows, _BINS, (low, high), weights=np.broadcast_to(weight, rows.shape)
    )
    x = (edges[1:] + edges[:-1]) / 2
    used = mass > 0
    x, mass = x[used], mass[used] / mass.sum()
    return x, mass, UNARY[kind].reference(x).astype(np.float64)


def centred_activation(kind: str, rows: Rows, centre: float) -> Activation:
    """Table of an activation with byte zero for ``centre``, and for zero in its output.

    Parameters
    ----------
    rows : ``[S, D]``, float inputs
    """
    peak = max(float(np.abs(rows - centre).max()), 1e-6)
    seen = _seen(kind, rows, np.ones(rows.shape[1]), centre - peak, centre + peak)
    tops = [peak * float(part) for part in np.linspace(0.3, 1, 15)]
    trials = [_trial(kind, (centre - top, centre + top), *seen, True) for top in tops]
    return min(trials, key=lambda trial: trial.cost).activation


def _trial(
    kind: str, window: tuple[float, float], x: Float, mass: Float, exact: Float, symmetric: bool,
    behind: Format | None = None,
) -> _Window:
    low, high = window
    centre, step_in = (low + high) / 2, (high - low) / (2 * INT8_MAX)
    codes = np.arange(-INT8_MAX, INT8_MAX + 1)
    values = UNARY[kind].reference(centre + step_in * codes)
    # Zero is in the format, too: else its code, the zero point, might be none of a byte.
    bottom, top = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step_out = max(top - bottom, 1e-9) / (2 * INT8_MAX)
    zero_point = int(np.clip(round(-INT8_MAX - bottom / step_out), -128, INT8_MAX))
    if symmetric:
        step_out, zero_point = max(abs(bottom), abs(top), 1e-9) / INT8_MAX, 0
    if behind is not None:
        step_out, zero_point = behind
    result = np.clip(np.rint(values / step_out) + zero_point, -INT8_MAX, INT8_MAX)
    index = np.clip(np.rint((x - centre) / step_in), -INT8_MAX, INT8_MAX).astype(int) + INT8_MAX
    error = (result[index] - zero_point) * step_out - exact
    table = np.empty(formats.TABLE_ENTRIES, np.int8)
    table[codes & 0xFF] = result
    table[-128 & 0xFF] = table[-INT8_MAX & 0xFF]
    chosen = Activation(table, centre, step_in, step_out, zero_point, np.ones(0, np.int64))
    return _Window(float(np.dot(mass, error * error)), low, high, top, chosen)
