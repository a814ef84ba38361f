"""The operand of a convolution: the channels of an int8 map, by tap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitrify.quant import scheme
from vitrify.quant.assemble import Assembler
from vitrify.quant.calibrate import Request
from vitrify.quant.operands import Source
from vitrify.quant.rounding import Moments, Separate

from .plan import LinearOp


def windows(a: Assembler, op: LinearOp, x: Source) -> Source:
    """``x``, the pixels, as the inputs of the weights of ``op``.

    Where every output reads all channels, it is known how the pixels of a window depend on each
    other; elsewhere only what each channel is like.
    """
    window, out = op.window, op.weight.shape[0]
    assert window is not None
    assert not x.zero_point
    assert not np.any(x.offset)
    size = op.weight.shape[1]
    none, every = np.zeros(size), np.arange(size)
    if window.groups == 1:
        step = np.tile(x.step, window.taps)
        seen = a.stats[Request(op.x.value, window=window)].rows / step
        moments = Moments(np.clip(seen, -scheme.INT8_MAX, scheme.INT8_MAX))
        return replace(x, step=step, offset=none, moments=moments, channels=every)
    stats = a.stats[Request(op.x.value)]
    peaks = np.minimum(stats.peak / x.step, scheme.INT8_MAX)
    assert isinstance(x.moments, Moments)
    separate = Separate(*(
        window.inputs(np.asarray(values, np.float64), out)
        for values in (x.moments.mean, x.moments.energy, peaks)
    ))
    return replace(
        x, step=window.inputs(x.step, out), offset=none, moments=separate, channels=every
    )
