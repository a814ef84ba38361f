"""Images that stand for calibration images, where the model itself says what its ranges are.

They are noise with the spectrum of photographs: neighbours are alike, amplitudes fall with the
frequency.  What is measured on them is stretched to the ranges of the file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.errors import InputError
from vitrify.frontend import image_input, input_range
from vitrify.ir import shape_of
from vitrify.program import preprocess

_IMAGES = 32
_SEED = 5
#: Share of an image's contrast that its colours have of their own.
_COLOUR = 0.3
#: Standard deviations of the noise that the range of the input holds.
_DEVIATIONS = 4.0


def stand_ins(model: ir.Model, spec: str | None) -> npt.NDArray[np.float32]:
    """Images [N, C, H, W] over the range of a quantised model's input.

    Parameters
    ----------
    spec : how pictures become inputs; with it the range is that of pixels

    Raises
    ------
    InputError
        If nothing says what the range is.
    """
    image = image_input(model)
    channels, height, width = (int(size) for size in shape_of(image)[1:])
    pixels = image.dtype is not None and not image.dtype.is_floating_point()
    found = (0.0, float(preprocess.PIXEL_MAX)) if pixels else input_range(model)
    if found is None:
        raise InputError(
            f"nothing in the model quantises its input {image.name!r}, so that its ranges are not "
            f"known: give --calib, a few dozen images of the kind that the model will see"
        )
    low, high = (np.full(channels, end) for end in found)
    if spec is not None:
        gain, offset = preprocess.parse(spec).affine(channels)
        low, high = offset, preprocess.PIXEL_MAX * gain + offset
    rng = np.random.default_rng(_SEED)
    grey = _smooth(rng, (_IMAGES, 1, height, width))
    noise = grey + _COLOUR * _smooth(rng, (_IMAGES, channels, height, width))
    noise *= rng.uniform(0.4, 1.2, (_IMAGES, 1, 1, 1)) / _DEVIATIONS
    middle = rng.uniform(0.3, 0.7, (_IMAGES, 1, 1, 1))
    share = np.clip(middle + noise, 0.0, 1.0)
    return (low[:, None, None] + share * (high - low)[:, None, None]).astype(np.float32)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Noise of variance one whose amplitudes fall with the frequency."""
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / frequency
    noise = np.fft.irfft2(spectrum, (height, width))
    return noise / np.maximum(noise.std(axis=(-2, -1), keepdims=True), 1e-9)
