"""One range for the channels of all tensors that share the image of a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .cut import Source

Float = npt.NDArray[np.float64]
#: Gain and offset of each channel of tensors, by their names.
Maps = Mapping[str, tuple[Float, Float]]

#: Range of a channel, in parts of its largest number, below which it is a constant.
_LEAST = 1e-6


def maps_of(source: Source, tensors: Mapping[str, npt.NDArray[Any]]) -> Maps:
    """Gains and offsets with which every channel of some tensors ``[N, …]`` reaches from -1 to 1.

    What shares an image shares its steps: without them a tensor of large numbers would leave a
    few steps to one of small ones.
    """
    found: dict[str, tuple[Float, Float]] = {}
    for name, array in tensors.items():
        lines = np.moveaxis(array, source.axis(name), -1).reshape(-1, source.channels(name))
        low, high = (end(lines, axis=0).astype(np.float64) for end in (np.min, np.max))
        span = high - low
        gain = 2 / np.where(span > _LEAST * np.maximum(abs(high), abs(low)), span, 2)
        found[name] = (gain, -gain * (low + high) / 2)
    return found


def stand_in(row: int, channels: int) -> tuple[Float, Float]:
    """A gain and an offset of each channel that no other tensor has."""
    shift = 1 / (1 + row)
    return shift + np.linspace(0.5, 1.5, channels), shift + np.linspace(0.1, 0.3, channels)
