"""What an application takes, and its calibration: an image alone, or tensors by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitrify.arch.errors import InputError
from vitrify.frontend import is_channels_last, is_image, model_inputs
from vitrify.ir import shape_of
from vitrify.program import ImageSpec, TensorSpec, as_inputs, channels_first, preprocess

Array = npt.NDArray[Any]
#: Images ``[N, C, H, W]``, or an array ``[N, …]`` for each input.
Calibration = Array | Mapping[str, Array]
Specs = tuple[ImageSpec | TensorSpec, ...]


def specs_of(model: ir.Model, text: str | None = None) -> Specs:
    """What a model takes, as it was loaded.

    Parameters
    ----------
    text : how pictures become its images

    Raises
    ------
    ModelInputError
        Names an input that no application has.
    InputError
        If ``text`` is given for a model without images.
    """
    inputs = model_inputs(model)
    if text is not None and not any(map(is_image, inputs)):
        listed = ", ".join(f"{value.name!r} {value.shape}" for value in inputs)
        raise InputError(
            f"preprocess {text!r} says how pictures become images, and the model takes none, but "
            f"{listed}; leave it out"
        )
    return tuple(
        image_spec(value, text) if is_image(value) else TensorSpec(
            name=value.name or "", shape=tuple(int(size) for size in shape_of(value)[1:]),
            dtype=type_of(value).name,
        )
        for value in inputs
    )  # fmt: skip


def image_spec(image: ir.Value, text: str | None) -> ImageSpec:
    """The specification of an image."""
    channels, height, width = (int(size) for size in shape_of(image)[1:])
    return ImageSpec(
        name=image.name or "", shape=(channels, height, width),
        preprocess=of_image(image, text), channels_last=is_channels_last(image),
    )


def of_image(image: ir.Value, text: str | None) -> str | None:
    """The preprocessing for an image: a model that takes pixels gets them as they are."""
    if image.dtype is None or image.dtype.is_floating_point():
        return text
    name, channels = image.name or "", int(shape_of(image)[1])
    return preprocess.of_pixels(name, image.dtype.name.lower(), text, channels)


def type_of(value: ir.Value) -> np.dtype[Any]:
    """NumPy's type of an input."""
    return np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())


def images_of(image: ir.Value, calibration: Calibration | None) -> Array | None:
    """Calibration images ``[N, C, H, W]`` of some as the model takes them.

    Raises
    ------
    InputError
        If there are arrays of inputs, and none of the image.
    """
    if isinstance(calibration, Mapping):
        if image.name not in calibration:
            raise InputError(
                f"the calibration has no array {image.name!r}, the model's input; its arrays are "
                f"{', '.join(map(repr, calibration)) or 'none'}"
            )
        calibration = calibration[image.name or ""]
    if calibration is None or not is_channels_last(image):
        return calibration
    return channels_first(image_spec(image, None), np.asarray(calibration))


def feed_of(specs: Specs, calibration: Calibration | None) -> dict[str, Array]:
    """Calibration for each input of a model that takes other things than an image.

    Raises
    ------
    InputError
        If there is none, or it does not fit the model.
    """
    listed = ", ".join(f"{spec.name!r} {list(spec.given_shape)}" for spec in specs)
    if calibration is None:
        raise InputError(
            f"the model takes {listed} and not one image: give --calib, a .npz with an array "
            f"[N, …] for each input, a few dozen samples of the kind that the model will see"
        )
    if not isinstance(calibration, Mapping):
        if len(specs) > 1:
            raise InputError(
                f"the model takes {listed}: the calibration has to be a dictionary, or a .npz, "
                f"with an array [N, …] for each"
            )
        calibration = {spec.name: calibration for spec in specs}
    return as_inputs(specs, calibration)


def as_given(model: ir.Model, images: npt.NDArray[Any]) -> Array:
    """Images in the type that the model takes."""
    image = next(value for value in model.graph.inputs if len(shape_of(value)) == images.ndim)
    return _typed(image, images)


def as_typed(model: ir.Model, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """:func:`as_given` for all inputs by their names."""
    inputs = {value.name: value for value in model.graph.inputs}
    return {name: _typed(inputs[name], array) for name, array in feed.items()}


def _typed(value: ir.Value, array: npt.NDArray[Any]) -> Array:
    kind = type_of(value)
    if kind.kind in "iu":
        limits = np.iinfo(kind.name)
        return np.clip(np.rint(array), limits.min, limits.max).astype(kind)
    return array.astype(kind)
