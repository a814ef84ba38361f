"""Tables of activations: the windows of inputs that they cover, and units that are split."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.ir import UNARY

from .scheme import INT8_MAX, Float, Format, Rows, subsample

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
#: How far, in ranges of the results that calibration saw, those of a table may be from them: behind
#: a window's margins functions without poles stay nearer.  A range of zero counts as the least.
_BEYOND, _LEAST_RANGE = 0.5, 1e-6


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
    before, behind : step and zero point; results may be -128 unless ``symmetric``
    """
    rows = subsample(rows)
    if before is None:
        found = _window(kind, rows, weight, symmetric, behind)
    else:
        step, zero = before
        window = (step * (-INT8_MAX - zero), step * (INT8_MAX - zero))
        low, high = min(float(rows.min()), window[0]), max(float(rows.max()), window[1])
        seen = _seen(kind, rows, weight, low, high)
        found = _trial(kind, window, *seen, symmetric, behind, beyond=np.inf)
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
    # The middle of a bin may lie outside of the function's domain where no row does.
    exact = UNARY[kind].reference(np.clip(x, rows.min(), rows.max())).astype(np.float64)
    used = (mass > 0) & np.isfinite(exact)
    return x[used], mass[used] / mass[used].sum(), exact[used]


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


def _near(values: Rows, seen: Float, beyond: float) -> Float:
    """``values`` of a table's entries, at most ``beyond`` times their range from those ``seen``.

    A window may reach to where the function is no number, or to a pole that no input comes near:
    rounding still does, and must find a value like those of the inputs beside it.
    """
    good = np.flatnonzero(np.isfinite(values))
    if not len(good):  # a window behind the end of the domain
        return np.full(len(values), seen.mean())
    nearest = good[np.abs(np.arange(len(values))[:, None] - good).argmin(axis=1)]
    low, high = float(seen.min()), float(seen.max())
    margin = beyond * max(high - low, _LEAST_RANGE)
    return np.clip(values[nearest], low - margin, high + margin).astype(np.float64)


def _trial(
    kind: str, window: tuple[float, float], x: Float, mass: Float, exact: Float, symmetric: bool,
    behind: Format | None = None, beyond: float = _BEYOND,
) -> _Window:
    low, high = window
    centre, step_in = (low + high) / 2, (high - low) / (2 * INT8_MAX)
    codes = np.arange(-INT8_MAX, INT8_MAX + 1)
    values = _near(UNARY[kind].reference(centre + step_in * codes), exact, beyond)
    # Zero is in the format, too: else its code, the zero point, might be none of a byte.
    bottom, top = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step_out = max(top - bottom, 1e-9) / (2 * INT8_MAX)
    zero_point = int(np.clip(round(-INT8_MAX - bottom / step_out), -128, INT8_MAX))
    if symmetric:
        step_out, zero_point = max(abs(bottom), abs(top), 1e-9) / INT8_MAX, 0
    if behind is not None:
        step_out, zero_point = behind
    # The lowest byte is the zero of a ReLU in unsigned ones; only what is streamed may have it.
    lowest = -INT8_MAX if behind is None or symmetric else formats.INT8.min
    result = np.clip(np.rint(values / step_out) + zero_point, lowest, INT8_MAX)
    index = np.clip(np.rint((x - centre) / step_in), -INT8_MAX, INT8_MAX).astype(int) + INT8_MAX
    error = (result[index] - zero_point) * step_out - exact
    table = np.empty(formats.TABLE_ENTRIES, np.int8)
    table[codes & 0xFF] = result
    table[-128 & 0xFF] = table[-INT8_MAX & 0xFF]
    chosen = Activation(table, centre, step_in, step_out, zero_point, np.ones(0, np.int64))
    return _Window(float(np.dot(mass, error * error)), low, high, top, chosen)
