"""Depthwise convolutions whose weights are activations: each image makes its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .on_movement import bordered
from .on_reduce import total
from .pairs import multiply
from .values import Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def convolve_by(
    tracer: Tracer, view: View, weight: View, groups: int, strides: list[int], pads: list[int],
    dilations: list[int],
) -> View:  # fmt: skip
    """The map [1, C, H, W] convolved with [C, 1, y, x]: its taps, multiplied and added up."""
    channels, inner, *kernel = weight.shape
    if inner != 1 or len(kernel) != 2 or not view.shape[1] == channels == groups:
        raise Unfit("its weight is computed from the image, and it is not depthwise")
    if view.shape[0] != 1 or dilations != [1, 1]:
        raise Unfit("its weight is computed from several images, or is dilated")
    place = np.arange(1, view.index.size + 1).reshape(view.shape)
    wide = np.pad(place, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    taps = np.lib.stride_tricks.sliding_window_view(wide, kernel, (2, 3))
    found = bordered(view, taps[:, :, :: strides[0], :: strides[1]], 0.0)
    own = weight.moved(lambda array: array.reshape(1, channels, 1, 1, *kernel))
    summed = total(tracer, multiply(tracer, found, own), (4, 5), mean=False)
    return summed.moved(lambda array: array[..., 0, 0])
