"""Any picture that Pillow reads, upright and with 8 bits a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitrify.arch.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Most pixels of a picture, as it is and resized (Pillow refuses twice as many).
MOST_PIXELS = 1 << 27
#: Longer side over shorter side of the thinnest picture from which a crop makes sense.
MOST_ASPECT = 32
#: Pillow's mode for a model with this many input channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Of the 16-bit scale to the 8-bit one: 65535 becomes 255.
_SIXTEEN = 257.0
#: EXIF's number of the orientation.
_ORIENTATION = 0x0112


def convert(image: Image, channels: int) -> Image:
    """``image`` upright, as ``L``, ``RGB`` or ``RGBA`` for 1, 3 or 4 ``channels``.

    Pictures of 16 bits and of floats 0 … 1 are brought to 0 … 255; transparency is dropped where
    the model has no channel for it, as torchvision and timm do; of an animation the first picture
    counts.

    Raises
    ------
    InputError
        For a number of channels that no picture has, or pixels without a known scale.
    """
    if channels not in MODES:
        raise InputError(
            f"a model with {channels} input channels cannot take pictures; give an array file"
        )
    check_pixels(*image.size)
    try:
        return _eight_bits(_upright(image)).convert(MODES[channels])
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"a picture of the mode {image.mode} cannot become {MODES[channels]}; save it as RGB"
        ) from error


def check_pixels(width: int, height: int) -> None:
    """Refuse pictures that would take too much memory.

    Raises
    ------
    InputError
        For more than 128 Mi pixels, or none.
    """
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(
            f"a picture of {width} x {height} pixels; at most {MOST_PIXELS >> 20} Mi pixels are "
            f"read: scale it down"
        )


def check_aspect(width: int, height: int) -> None:
    """Refuse pictures of which a crop would show next to nothing.

    Raises
    ------
    InputError
        If one side is more than 32 times the other.
    """
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise InputError(
            f"a picture of {width} x {height} pixels is too thin to crop the model's input from it "
            f"(more than {MOST_ASPECT} to 1); crop it yourself"
        )


def _upright(image: Image) -> Image:
    """Turned as its EXIF orientation says; as it is, if that cannot be read."""
    from PIL import ImageOps

    # Damaged EXIF data raise whatever they like, and say nothing about the pixels.
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _eight_bits(image: Image) -> Image:
    """Pictures of more bits in Pillow's mode ``L``; others as they are."""
    from PIL import Image as pillow  # noqa: N813 - a board without pictures needs no Pillow

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        scale = 1 / 255
        limit, known = 1.0, "floats are taken for 0 … 1"
    else:
        scale = _SIXTEEN
        limit, known = 65535.0, "more than 8 bits are taken for 0 … 65535"
    # NaN compares false.
    if not (low >= 0 and high <= limit):
        raise InputError(
            f"a picture has the pixel values {low:g} to {high:g}, and {known}; give an 8-bit "
            f"picture or an array file"
        )
    return pillow.fromarray(np.rint(values / scale).astype(np.uint8))
