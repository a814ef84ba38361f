"""What may be wrong with calibration images, in sentences with figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .tensors import Float

Images = npt.NDArray[np.float32]

#: From so many images on, more of them gain next to nothing.
ENOUGH_IMAGES = 32
#: Values of pixels.
_PIXEL_MAX = 255
#: Share of pixels that may lie outside of 0 … 255 by rounding and resampling.
_OUTSIDE = 0.01
#: Pixels that cover less than this never came from pictures with this specification.
_LEAST_RANGE = 100
#: Normalised inputs stay below this.
_NORMALISED = 20
#: Correlation of neighbours: 0.8 and more in photographs, 0 in noise.
_NOISE = 0.1
#: Images that are looked at.
_LOOK = 64


class CalibrationWarning(UserWarning):
    """The calibration images are few, or do not look like the model's inputs."""


class Affine(Protocol):
    """What is asked of a preprocessing specification."""

    def affine(self, channels: int) -> tuple[Float, Float]:
        """``(gain, offset)`` per channel: the model's input is ``pixel * gain + offset``."""
        ...


def doubts(images: Images, preprocess: Affine | None, spec: str | None) -> Iterator[str]:
    """Everything about ``images [N, C, H, W]`` that looks wrong.

    Parameters
    ----------
    preprocess, spec : how pictures become inputs, if known, parsed and as it was given
    """
    count, images = len(images), images[:_LOOK]
    if count < ENOUGH_IMAGES:
        yield (
            f"{count} calibration image{'s' if count > 1 else ''}: results lose about "
            f"{_loss(count):.1g} dB of signal-to-noise ratio against 48 images; give "
            f"{ENOUGH_IMAGES} to 64 of the kind that the model will see"
        )
    flat = [i for i, image in enumerate(images) if np.ptp(image, axis=(1, 2)).max() == 0]
    if flat:
        yield (
            f"{len(flat)} of {len(images)} calibration images are of one colour (the first is "
            f"image {flat[0]}): they show nothing of what the model will see"
        )
    elif count > 1 and (images == images[0]).all():
        yield f"all {count} calibration images are the same"
    elif (alike := _neighbours(images)) < _NOISE:
        yield (
            f"neighbouring pixels of the calibration images have nothing in common (correlation "
            f"{alike:.2f}, photographs have 0.8 and more): ranges that fit noise do not fit "
            f"pictures"
        )
    if preprocess is None:
        if float(np.abs(images).max()) > _NORMALISED and float(images.min()) >= 0:
            yield (
                f"the calibration images have values {images.min():.3g} … {images.max():.3g}, like "
                f"pixels that were not normalised; if the model expects others, give --preprocess"
            )
        return
    gain, offset = (value[:, None, None] for value in preprocess.affine(images.shape[1]))
    pixels = (images - offset) / gain
    low, high = float(pixels.min()), float(pixels.max())
    outside = float(np.mean((pixels < -1) | (pixels > _PIXEL_MAX + 1)))
    if outside > _OUTSIDE:
        yield (
            f"{100 * outside:.0f} % of the calibration pixels lie outside of 0 … 255 under the "
            f"preprocessing {spec!r} ({low:.3g} … {high:.3g}): the images were not, or "
            f"differently, normalised"
        )
    elif high - low < _LEAST_RANGE and not flat:
        yield (
            f"the calibration pixels cover {low:.0f} … {high:.0f} of 0 … 255 under the "
            f"preprocessing {spec!r}: the images were not, or differently, normalised"
        )


def _loss(count: int) -> float:
    """Of the worst of three models, measured (``docs/numerics.md``)."""
    known = {1: 8.0, 2: 5.0, 4: 3.5, 8: 1.3, 16: 0.8, ENOUGH_IMAGES: 0.3}
    return float(np.interp(np.log2(count), np.log2(list(known)), list(known.values())))


def _neighbours(images: Images) -> float:
    """Correlation of pixels with their neighbours, of the one direction in which it is larger."""
    if min(images.shape[2:]) < 2:
        return 1.0
    centred = images - images.mean(axis=(2, 3), keepdims=True)
    energy = float(np.mean(centred * centred))
    along = float(np.mean(centred[..., 1:] * centred[..., :-1]))
    down = float(np.mean(centred[..., 1:, :] * centred[..., :-1, :]))
    return max(along, down) / max(energy, 1e-30)
