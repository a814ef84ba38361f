"""The preprocessing specification: how a picture becomes the float input of a model.

``imagenet``, ``augreg``, ``none``, or settings separated by commas; per-channel lists by colons::

    crop_pct=0.9,mean=0.5,std=0.5
    size=224:256,crop_pct=0.875,mean=0.485:0.456:0.406,std=0.229:0.224:0.225

=================  ==========================================================================
``size``           height and width of the input, one number when equal (default: the model's)
``crop_pct``       shorter side to ``floor(size / crop_pct)`` before the centre crop (1)
``crop_mode``      ``center`` (default), or ``squash``: both sides so, whatever their ratio was
``interpolation``  ``bicubic`` (default), ``bilinear``, ``lanczos`` or ``nearest``
``mean, std``      ``x = (pixel / 255 - mean) / std``, one value or one a channel (0, 1)
=================  ==========================================================================

``none`` resizes nothing and leaves the pixel values 0 … 255 as they are.  ``imagenet`` is what
torchvision and DeiT take; ``augreg`` what timm's ``vit_*_augreg`` and most other ViTs take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import InputError
from vitrify.arch.text import short

from .pictures import check_aspect, check_pixels, convert

if TYPE_CHECKING:
    from PIL.Image import Image

#: Largest number in a specification, and inverse of the smallest positive one.
_MOST = 1e6
#: Of a picture, a crop shows this share of the shorter side at least.
_LEAST_CROP = 0.1
#: Largest value of a pixel.
PIXEL_MAX = 255
#: Names of Pillow's resampling filters that a specification may ask for.
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest")
#: Specifications with a name.
NAMED = {
    "imagenet": "crop_pct=0.875,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
    "augreg": "crop_pct=0.9,mean=0.5,std=0.5",
    "none": "none",
}
#: What becomes of a picture of another ratio of sides.
CROP_MODES = ("center", "squash")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """A parsed specification.

    ``raw`` marks ``none``: the picture must have the model's size, pixels stay 0 … 255.
    """

    size: tuple[int, int] | None = None
    crop_pct: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    raw: bool = False

    def affine(self, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """``(gain, offset)`` per channel with ``x = pixel * gain + offset``.

        Raises
        ------
        InputError
            If ``mean`` or ``std`` lists another number of channels.
        """
        if self.raw:
            return np.ones(channels), np.zeros(channels)
        mean, std = (
            _per_channel(value, channels, name)
            for value, name in ((self.mean, "mean"), (self.std, "std"))
        )
        return 1 / (PIXEL_MAX * std), -mean / std

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 ``[..., C, H, W]`` to the float input of the model."""
        gain, offset = self.affine(pixels.shape[-3])
        result = np.empty(pixels.shape, np.float32)
        for channel in range(len(gain)):
            known = (np.arange(PIXEL_MAX + 1) * gain[channel] + offset[channel]).astype(np.float32)
            result[..., channel, :, :] = known[pixels[..., channel, :, :]]
        return result

    def picture(self, image: Image, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
        """A picture resized and cropped to the model's input ``(C, H, W)``: uint8 ``[C, H, W]``.

        Raises
        ------
        InputError
            If the model's channels fit no picture, or ``none`` is asked for another size.
        """
        from PIL import Image as pillow  # noqa: N813 - a board without pictures needs no Pillow

        channels, height, width = shape
        if self.size is not None and self.size != (height, width):
            raise InputError(
                f"preprocess size={_format_size(self.size)} differs from the model's input of "
                f"{height} x {width}; leave size out"
            )
        image = convert(image, channels)
        if not self.raw:
            size = self._resized(image, width, height)
            check_pixels(*size)
            image = image.resize(size, getattr(pillow.Resampling, self.interpolation.upper()))
            left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        elif image.size != (width, height):
            raise InputError(
                f"a picture of {image.width} x {image.height} does not fit the model's input of "
                f"{width} x {height}; give a preprocess specification other than 'none'"
            )
        pixels = np.asarray(image, np.uint8)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _resized(self, image: Image, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture before ``width x height`` are cut out of its middle."""
        # floor(224 / 0.875) is 256 however the decimal fraction is stored.
        if self.crop_mode == "squash":
            return (math.floor(width / self.crop_pct + 1e-9),
                    math.floor(height / self.crop_pct + 1e-9))
        check_aspect(*image.size)
        short = math.floor(min(height, width) / self.crop_pct + 1e-9)
        ratio = max(short / min(image.size), height / image.height, width / image.width)
        # The longer side is truncated, as torchvision does it.
        return (max(width, int(image.width * ratio + 1e-6)),
                max(height, int(image.height * ratio + 1e-6)))

    def apply(
        self, images: Sequence[Image] | npt.NDArray[np.uint8], shape: tuple[int, int, int]
    ) -> npt.NDArray[np.float32]:
        """Pictures, or uint8 arrays ``[N, C, H, W]`` or ``[N, H, W, C]``, to float32 NCHW.

        Arrays are only normalised, when they have the model's size already; otherwise they are
        treated like pictures.

        Parameters
        ----------
        shape : the model's input ``(C, H, W)``

        Raises
        ------
        InputError
            For an array of another type, rank or number of channels.
        """
        if not isinstance(images, np.ndarray):
            pixels = [self.picture(image, shape) for image in images]
            return self.normalise(np.stack(pixels) if pixels else np.zeros((0, *shape), np.uint8))
        return self.normalise(self._array(images, shape))

    def _array(
        self, images: npt.NDArray[np.uint8], shape: tuple[int, int, int]
    ) -> npt.NDArray[np.uint8]:
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise InputError(
                f"pictures must be uint8 of rank 3 or 4, not {images.dtype} {list(images.shape)}"
            )
        batch = images if images.ndim == 4 else images[None]
        if batch.shape[1:] == shape:
            return batch
        channels = shape[0]
        if batch.shape[-1] == channels:
            hwc = batch
        elif batch.shape[1] == channels:
            hwc = batch.transpose(0, 2, 3, 1)
        else:
            raise InputError(
                f"pictures {list(images.shape)} do not have the model's {channels} channels"
            )
        if hwc.shape[1:3] == shape[1:]:
            return np.ascontiguousarray(hwc.transpose(0, 3, 1, 2))
        from PIL import Image as pillow  # noqa: N813

        squeeze: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] = (
            (lambda a: a[..., 0]) if channels == 1 else lambda a: a
        )
        return np.stack([self.picture(pillow.fromarray(squeeze(a)), shape) for a in hwc])


def of_pixels(name: str, kind: str, text: str | None, channels: int) -> str:
    """The specification for a model that takes pixels and normalises them itself.

    Parameters
    ----------
    name, kind : of the input, and its type
    text : what is asked for, if anything

    Raises
    ------
    InputError
        If that changes pixels.
    """
    if text is None:
        return "none"
    gain, offset = parse(text).affine(channels)
    if not np.allclose(gain, 1, atol=1e-6) or not np.allclose(offset, 0, atol=1e-4):
        raise InputError(
            f"input {name!r} takes pixels 0 … 255 ({kind}) and "
            f"normalises them itself, but preprocess {text!r} changes them; use none, or settings "
            f"with mean=0,std={1 / PIXEL_MAX!r}"
        )
    return text


def parse(text: str) -> Preprocess:
    """The specification in ``text``.

    Raises
    ------
    InputError
        For an unknown setting or a value that makes no sense; the message names both.
    """
    spec = NAMED.get(text.strip(), text.strip())
    if spec == "none":
        return Preprocess(raw=True)
    values: dict[str, object] = {}
    for item in spec.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or key not in _PARSERS:
            raise InputError(
                f"preprocess setting {short(item.strip())} is not known; the settings are "
                f"{', '.join(f'{name}=' for name in _PARSERS)} (or {', '.join(NAMED)})"
            )
        if key in values:
            raise InputError(f"preprocess setting {key!r} is given twice; leave one out")
        values[key] = _PARSERS[key](key, value)
    return Preprocess(**values)  # type: ignore[arg-type]


def format(spec: Preprocess) -> str:  # noqa: A001 - the counterpart of parse
    """The text that :func:`parse` turns into ``spec``."""
    if spec.raw:
        return "none"
    parts = [] if spec.size is None else [f"size={_format_size(spec.size)}"]
    parts += [
        f"crop_pct={spec.crop_pct!r}",
        f"mean={':'.join(map(repr, spec.mean))}",
        f"std={':'.join(map(repr, spec.std))}",
        f"interpolation={spec.interpolation}",
    ]
    if spec.crop_mode != "center":
        parts.append(f"crop_mode={spec.crop_mode}")
    return ",".join(parts)


def _format_size(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}:{size[1]}"


def _per_channel(values: tuple[float, ...], channels: int, name: str) -> npt.NDArray[np.float64]:
    if len(values) not in (1, channels):
        raise InputError(
            f"preprocess {name} has {len(values)} values for {channels} channels; "
            f"give 1 or {channels}"
        )
    return np.broadcast_to(np.asarray(values, np.float64), (channels,))


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(
            f"preprocess {key}={short(text)} is not a number, nor a list such as 0.5:0.5:0.5"
        ) from None
    if not all(abs(number) <= _MOST for number in numbers):  # NaN compares false
        raise InputError(f"preprocess {key}={short(text)} must be from {-_MOST:.0f} to {_MOST:.0f}")
    return numbers


def _positive(key: str, text: str) -> tuple[float, ...]:
    numbers = _numbers(key, text)
    if min(numbers) < 1 / _MOST:
        raise InputError(f"preprocess {key}={short(text)} must be at least {1 / _MOST:g}")
    return numbers


def _crop(key: str, text: str) -> float:
    numbers = _positive(key, text)
    if len(numbers) != 1 or not _LEAST_CROP <= numbers[0] <= 1:
        raise InputError(
            f"preprocess {key}={short(text)} must be one number from {_LEAST_CROP} to 1"
        )
    return numbers[0]


def _size(key: str, text: str) -> tuple[int, int]:
    numbers = _positive(key, text)
    if len(numbers) not in (1, 2) or any(number != int(number) for number in numbers):
        raise InputError(f"preprocess {key}={short(text)} must be one whole number or height:width")
    return int(numbers[0]), int(numbers[-1])


def _one_of(known: Sequence[str]) -> Callable[[str, str], str]:
    def check(key: str, text: str) -> str:
        if text not in known:
            raise InputError(f"preprocess {key}={short(text)} is not one of {', '.join(known)}")
        return text

    return check


_PARSERS: dict[str, Callable[[str, str], object]] = {
    "size": _size,
    "crop_pct": _crop,
    "mean": _numbers,
    "std": _positive,
    "interpolation": _one_of(INTERPOLATIONS),
    "crop_mode": _one_of(CROP_MODES),
}
