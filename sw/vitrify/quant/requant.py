"""Integer parameters of one matrix product: weights, bias, multiplier and shifts.

The multiplier of each column is rounded first and the weights are quantised with the step that the
rounded multiplier stands for, so that requantisation itself adds no scale error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats
from vitrify.arch.errors import ModelError

from .rounding import GRIDS, Grid, Moments, Separate, nearest, weigh
from .scheme import INT8_MAX
from .tensors import Requant
from .wanted import WIDE

Float = npt.NDArray[np.float64]

#: Steps of a row are at least this part of the largest step: multipliers keep 6 bits or more.
_STEP_RANGE = 2.0**-10
#: Accumulators may reach this many times what was seen before the multiplier's port saturates.
_MARGIN = 2.0
#: Magnitude that a bias may reach; half of the accumulator's range is left to the products.
_BIAS_MAX = 1 << (formats.BIAS_BITS - 1)
#: A row of weights lies on a grid if no weight is further from it, in steps.
ON_GRID = 0.02
#: Weights that are rounded at once, one layer with several clips, which saves calls.
_AT_ONCE = 1 << 22
#: Weights of a row that are looked at first.
_FIRST = 16


class ScaleError(ModelError):
    """An accumulator's unit is too many output steps, or too few, for the multiplier."""


@dataclass(frozen=True)
class Columns:
    """Weights ``[out, in]`` and requantisation of a matrix product, with the step per output.

    ``bits`` of a weight in DRAM.
    """

    weight: npt.NDArray[np.int8]
    requant: Requant
    step: Float
    bits: int = WIDE


def weight_steps(weight: Float, moments: Moments | Separate, grid: Grid) -> Float:
    """Step of each row of ``weight [out, in]`` that minimises the error of its results.

    Of a fine grid each weight is taken to be rounded by itself, which is quick.
    """
    peak = np.abs(weight).max(axis=1)
    best = peak / grid.high
    least = np.full(len(weight), np.inf)
    safe = np.where(peak > 0, peak, 1.0)
    for clip, cost in zip(grid.clips, _costs(weight, safe, moments, grid), strict=True):
        step = safe * clip / grid.high
        better = cost < least
        least = np.where(better, cost, least)
        best = np.where(better & (peak > 0), step, best)
    return best


def _costs(
    weight: Float, peak: Float, moments: Moments | Separate, grid: Grid
) -> Iterator[Float]:
    """Errors ``[out]`` with each of the clips."""
    if not grid.sweeps:
        for clip in grid.clips:
            step = peak * clip / grid.high
            error = nearest(weight, step, grid)
            np.subtract(weight, np.multiply(step[:, None], error, out=error), out=error)
            yield weigh(np.square(error, out=error), moments.energy)
        return
    several = max(1, _AT_ONCE // weight.size)
    for start in range(0, len(grid.clips), several):
        clips = np.array(grid.clips[start : start + several])
        steps = (clips[:, None] * peak / grid.high).reshape(-1)
        every = np.tile(weight, (len(clips), 1))
        rounded = moments.round(every, steps, replace(grid, sweeps=0))
        yield from moments.cost(every - steps[:, None] * rounded).reshape(len(clips), -1)


def grid_steps(weight: Float, high: int) -> Float:
    """Steps ``[out]`` of rows of ``weight [out, in]`` that are integers, times a step, already.

    Zero for a row that is not, and for one of zeros.  Integers far below ``high``, the largest
    allowed, are multiplied, so that steps do not become coarser than the core can scale.
    """
    steps, peak = np.zeros(len(weight)), np.abs(weight).max(axis=1)
    some = np.argsort(-np.abs(weight), axis=1)[:, :_FIRST]
    few = np.take_along_axis(weight, some, axis=1)
    for largest in range(1, high + 1):
        left = np.flatnonzero((steps == 0) & (peak > 0))
        step = peak[left] / largest
        fits = _fits(few[left], step)
        left, step = left[fits], step[fits]
        fits = _fits(weight[left], step)
        steps[left[fits]] = step[fits] / (high // largest)
    return steps


def _fits(weight: Float, step: Float) -> npt.NDArray[np.bool_]:
    code = weight / step[:, None]
    return np.abs(code - np.rint(code)).max(axis=1, initial=0.0) <= ON_GRID


def shifts(
    factor: Float, reach: int, bound: Float, requant_bits: int, what: str
) -> tuple[int, int]:
    """``(pre_shift, post_shift)`` for real factors from accumulator to output.

    Parameters
    ----------
    factor : positive, one a column
    reach : largest magnitude of the output
    bound : largest magnitude of the accumulator with bias, one a column
    requant_bits : width of the multiplier's data port

    Raises
    ------
    ScaleError
        If no legal shift represents the factors.
    """
    port = (1 << (requant_bits - 1)) - 1
    # The port may saturate only where the output saturates too.
    needed = float(np.max(np.minimum(bound, (reach + 1) / factor)))
    pre = max(0, int(np.ceil(np.log2(needed / port)))) if needed > port else 0
    largest = float(np.max(factor))
    limit = formats.IntFormat(formats.MULTIPLIER_BITS, signed=False).max
    fitting = [s for s in formats.POST_SHIFTS if largest * 2.0 ** (pre + s) <= limit]
    if pre > formats.MAX_PRE_SHIFT or not fitting:
        raise ScaleError(
            f"{what}: its output is {1 / largest:.3g} accumulator units a step, which the core's "
            f"requantisation cannot express; look for extreme values in its weights and its "
            f"inputs (Exp of large numbers makes some)"
        )
    return pre, max(fitting)


def finest(weight: Float, bias: Float, grid: Grid) -> Float:
    """The finest output steps ``[...]`` that ``weight [..., in]`` and ``bias`` can be scaled to.

    A step of the accumulator is many of these: finer ones would tell no more.
    """
    widest = np.abs(weight).max(axis=-1) * max(grid.clips) / grid.high
    steps = np.maximum.reduce([
        widest, np.full_like(widest, widest.max() * _STEP_RANGE),
        2 * np.abs(bias) / (_BIAS_MAX - 1),
    ])
    limit = formats.IntFormat(formats.MULTIPLIER_BITS, signed=False).max
    return steps * 2.0 ** min(formats.POST_SHIFTS) / (limit - 1)


def columns(
    weight: Float,
    bias: Float,
    out_step: float | Float,
    *,
    moments: Moments | Separate,
    reach: int,
    requant_bits: int,
    what: str,
    zero_point: int = 0,
    grid: Grid = GRIDS[WIDE],
    stored: bool = False,
) -> Columns:
    """Integers of ``out = weight @ x + bias``.

    Parameters
    ----------
    weight : ``[out, in]``, from the integer input (less its zero point) to real output
    bias : ``[out]``, real
    out_step : real value of an output step, one or one a column
    moments : of the integer input less its zero point; the bias takes up the mean rounding error
    reach : largest magnitude of the output in steps
    zero_point : of the input; its contribution is taken off the bias
    what : names the op in messages
    grid : what weights may be
    stored : rows that are integers times a step already, as in a quantised file, stay those
    """
    steps = weight_steps(weight, moments, grid)
    if stored:
        own = grid_steps(weight, grid.high)
        steps = np.where(own > 0, own, steps)
    # Rows without weights, and rows whose bias would not fit, take a coarser step.
    floor = max(float(steps.max()) * _STEP_RANGE, 1e-30)
    steps = np.maximum.reduce(
        [steps, np.full_like(steps, floor), 2 * np.abs(bias) / (_BIAS_MAX - 1)]
    )
    inputs = 2 * INT8_MAX + 1 if zero_point else INT8_MAX + 1
    # What can never be exceeded, and what the samples say will not be.
    bound = (
        np.minimum(np.abs(weight).sum(axis=1) * inputs, _MARGIN * moments.peak(weight))
        + np.abs(bias)
    ) / steps
    factor = steps / out_step
    pre, post = shifts(factor, reach, bound, requant_bits, what)
    multiplier = np.maximum(1, np.rint(factor * 2.0 ** (pre + post)))
    steps = multiplier * 2.0 ** -(pre + post) * out_step
    rounded = moments.round(weight, steps, grid)
    bias = bias + weigh(weight - rounded * steps[:, None], moments.mean)
    whole = np.rint(bias / steps) - zero_point * rounded.sum(axis=1)
    if np.abs(whole).max(initial=0) >= _BIAS_MAX:
        raise ModelError(f"{what}: its bias does not fit the accumulator; rescale the layer")
    return Columns(
        rounded.astype(np.int8),
        Requant(pre, post, multiplier.astype(np.uint16), whole.astype(np.int32)),
        steps,
    )


def single(factor: float, reach: int, bound: float, requant_bits: int, what: str) -> Requant:
    """Requantisation with one multiplier, no bias: ``out = acc * factor``."""
    assert factor >= 0, f"{what}: multipliers have no sign"
    pre, post = shifts(np.array([factor]), reach, np.array([bound]), requant_bits, what)
    return Requant(pre, post, max(1, round(factor * 2.0 ** (pre + post))))
