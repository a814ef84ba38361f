"""The preprocessing specification: how a picture becomes the float input of a model.

``crop_pct=0.9,mean=0.5,std=0.5`` or ``imagenet``.  Settings are separated by commas; per-channel
lists by colons or slashes (``mean=0.485:0.456:0.406``) or by brackets (``mean=[0.5,0.5,0.5]``).

==============  ======================================================================
``crop_pct``    shorter side to ``floor(size / crop_pct)`` before the centre crop (1.0)
``mean, std``   ``x = (pixel / 255 - mean) / std``, one value or one a channel (0, 1)
``filter``      ``bicubic`` (default), ``bilinear``, ``nearest`` or ``lanczos``
``scale``       value of a full pixel before mean and std (1.0)
==============  ======================================================================
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError

FILTERS = ("bicubic", "bilinear", "nearest", "lanczos")
#: Largest pixel value of an 8-bit picture.
PIXEL_MAX = 255
#: Specifications with a name.
NAMED = {
    "imagenet": "crop_pct=0.875,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A parsed specification."""

    crop_pct: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    filter: str = "bicubic"
    scale: float = 1.0

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 ``[..., C, H, W]`` to the float input of the model."""
        channels = pixels.shape[-3]
        mean, std = (_per_channel(v, channels, n) for v, n in
                     ((self.mean, "mean"), (self.std, "std")))
        x = pixels.astype(np.float32) * np.float32(self.scale / PIXEL_MAX)
        return ((x - mean) / std).astype(np.float32)

    def resized(self, size: int) -> int:
        """Length of the shorter side before the crop to ``size``."""
        # 224 / 0.875 must be 256 however the decimal fraction is stored.
        return math.floor(size / self.crop_pct + 1e-9)


def _per_channel(
    values: tuple[float, ...], channels: int, name: str
) -> npt.NDArray[np.float32]:
    if len(values) not in (1, channels):
        raise InputError(
            f"preprocess {name} has {len(values)} values for {channels} channels; "
            f"give 1 or {channels}"
        )
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def parse(text: str) -> Preprocess:
    """The specification in ``text``.

    Raises
    ------
    InputError
        For an unknown setting or a value that is not a number.
    """
    spec = NAMED.get(text.strip(), text)
    settings: dict[str, object] = {}
    for item in re.split(r",(?![^\[]*\])", spec):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or key not in Preprocess.__dataclass_fields__:
            raise InputError(
                f"preprocess setting {item.strip()!r} is not known; give "
                f"{', '.join(f'{k}=…' for k in Preprocess.__dataclass_fields__)} or "
                f"{', '.join(NAMED)}"
            )
        settings[key] = _value(key, value)
    return Preprocess(**settings)  # type: ignore[arg-type]


def _value(key: str, text: str) -> object:
    if key == "filter":
        if text not in FILTERS:
            raise InputError(f"preprocess filter {text!r} is not one of {', '.join(FILTERS)}")
        return text
    try:
        numbers = tuple(float(v) for v in re.split(r"[:/,]", text.strip("[]")))
    except ValueError:
        raise InputError(f"preprocess {key}={text!r} is not a number") from None
    positive = key in ("crop_pct", "std", "scale")
    if not all(math.isfinite(v) and (v > 0 or not positive) for v in numbers):
        raise InputError(f"preprocess {key}={text!r} must be finite{' and positive' * positive}")
    if key in ("mean", "std"):
        return numbers
    if len(numbers) != 1:
        raise InputError(f"preprocess {key} takes one value, not {text!r}")
    if key == "crop_pct" and numbers[0] > 1:
        raise InputError(f"preprocess crop_pct={text!r} must not exceed 1")
    return numbers[0]
