"""Images to input bytes, output bytes to results: what surrounds the core on every backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import InputError

from . import preprocess
from .program import Program
from .spec import ImageSpec, InputSpec, OutputSpec, TensorSpec

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def as_batch(spec: ImageSpec, images: npt.ArrayLike) -> Float32:
    """Check a batch and turn it into float32 ``[N, C, H, W]``.

    Parameters
    ----------
    spec : ImageSpec
        What the program expects.
    images : array_like
        Floats of any width, as the model takes them or ``[N, C, H, W]``; or uint8 pixels
        ``[N, C, H, W]`` or ``[N, H, W, C]``, which go through the program's preprocessing (mean
        and std).

    Raises
    ------
    InputError
        For a wrong shape, type or value.
    """
    array = np.asarray(images)
    pixels = array.dtype == np.uint8
    if not pixels and not is_real(array.dtype):
        raise InputError(f"input {spec.name!r} must be float or uint8, not {array.dtype}")
    array = channels_first(spec, array)
    if array.ndim != 4 or array.shape[1:] != spec.shape:
        raise InputError(
            f"input {spec.name!r} has the shape {list(np.shape(images))}; "
            f"the model takes {given_form(spec)}"
        )
    if len(array) == 0:
        raise InputError(f"input {spec.name!r} holds no image")
    if not pixels:
        return finite(spec.name, array)
    if spec.preprocess is None:
        raise InputError(
            f"input {spec.name!r} is uint8, but nothing says how pixels become the model's floats; "
            f"give --preprocess or a float array"
        )
    return preprocess.parse(spec.preprocess).normalise(array)


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are floats, bfloat16 included, which is no type of NumPy's own."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def channels_first(spec: ImageSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``[N, C, H, W]`` of what a model takes as ``[N, H, W, C]``, and of pixels in that layout.

    Where both have the same sizes, it is the model's.
    """
    last = (*spec.shape[1:], spec.shape[0])
    pixels = array.dtype == np.uint8 and last != spec.shape
    turned = array.ndim == 4 and array.shape[1:] == last and (spec.channels_last or pixels)
    return array.transpose(0, 3, 1, 2) if turned else array


def as_tensor(spec: TensorSpec, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Check a batch of tensors and turn it into ``[N, *spec.shape]`` of its type.

    Raises
    ------
    InputError
        For a wrong shape, and for values that the type does not have.
    """
    array, kind = np.asarray(values), np.dtype(spec.dtype)
    if array.ndim != len(spec.shape) + 1 or array.shape[1:] != spec.shape:
        raise InputError(
            f"input {spec.name!r} has the shape {list(array.shape)}; the model takes "
            f"{given_form(spec)}"
        )
    if len(array) == 0:
        raise InputError(f"input {spec.name!r} holds no sample")
    if kind.kind == "f" and is_real(array.dtype):
        return finite(spec.name, array).astype(kind, copy=False)
    bounds = np.iinfo(kind) if kind.kind in "iu" else None
    if array.dtype.kind not in ("iu" if bounds else "b") or kind.kind == "f":
        raise InputError(f"input {spec.name!r} must be {kind}, not {array.dtype}")
    if bounds and (array.min(initial=0) < bounds.min or array.max(initial=0) > bounds.max):
        raise InputError(
            f"input {spec.name!r} reaches from {array.min()} to {array.max()}, and {kind} from "
            f"{bounds.min} to {bounds.max}"
        )
    return array.astype(kind, copy=False)


def as_inputs(
    specs: Iterable[ImageSpec | TensorSpec], given: Mapping[str, npt.ArrayLike]
) -> dict[str, npt.NDArray[Any]]:
    """The inputs of an application, checked, images as ``[N, C, H, W]``.

    Raises
    ------
    InputError
        If one is missing or wrong, or they hold different numbers of samples.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for spec in specs:
        if spec.name not in given:
            raise InputError(f"input {spec.name!r} is missing: {given_form(spec)}")
        image = isinstance(spec, ImageSpec)
        value = given[spec.name]
        found[spec.name] = as_batch(spec, value) if image else as_tensor(spec, value)
    if len(set(map(len, found.values()))) > 1:
        counts = ", ".join(f"{name!r} {len(array)}" for name, array in found.items())
        raise InputError(f"the inputs hold different numbers of samples: {counts}")
    return found


def given_form(spec: ImageSpec | TensorSpec) -> str:
    """The shape of a batch, as messages say it."""
    return f"[{', '.join(map(str, ('N', *spec.given_shape)))}]"


def finite(name: str, array: npt.NDArray[Any]) -> Float32:
    """``array`` as float32.

    Raises
    ------
    InputError
        If a value is no number, or beyond float32.
    """
    if array.dtype == np.float32:
        floats = array
    else:
        with np.errstate(over="ignore"):
            floats = array.astype(np.float32)
    good = np.isfinite(floats)
    if not good.all():
        wrong = array[~good].flat[0]
        raise InputError(
            f"input {name!r} holds values that are not finite numbers of float32, {wrong} for "
            f"instance ({good.size - np.count_nonzero(good)} of {good.size})"
        )
    return floats


def integers(spec: InputSpec, values: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """The model's values ``[..., C, H, W]``, of any height and width, to int8."""
    factor, offset = (
        np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (spec.multiplier, spec.offset)
    )
    q = np.rint(values * factor + offset)
    return np.minimum(np.maximum(q, -128), 127).astype(np.int8)


def quantise(spec: InputSpec, batch: Float32) -> npt.NDArray[np.int8]:
    """Float ``[N, C, H, W]`` to int8 rows ``[N, rows, C*ph*pw]``, prefix rows zero."""
    if any(spec.pads):
        top, left, bottom, right = spec.pads
        batch = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)))
    q = np.ascontiguousarray(integers(spec, batch))
    high, wide = spec.strides or spec.patch
    images, channels, down, right = q.strides
    # sliding_window_view would take longer than all the rest does for a small image
    patches = np.ndarray(
        (len(q), *spec.patches, spec.shape[0], *spec.patch), q.dtype, q,
        strides=(images, high * down, wide * right, channels, down, right),
    )
    rows = np.zeros((len(batch), spec.rows, spec.columns), np.int8)
    rows[:, spec.prefix :] = patches.reshape(len(batch), -1, spec.columns)
    return rows


def to_words(rows: npt.NDArray[Any], depth: int) -> UInt8:
    """int8 or int16 ``[…, rows, channels]`` to word-major bytes, words of ``depth`` elements."""
    *images, count, channels = rows.shape
    words = -(-channels // depth)
    padded = np.zeros((*images, count, words * depth), rows.dtype)
    padded[..., :channels] = rows
    # [row, word, element, byte] -> [word, row, byte, element]: int16 gives a low and a high word.
    planes = padded.view(np.uint8).reshape(-1, count, words, depth, rows.itemsize)
    return np.ascontiguousarray(planes.transpose(0, 2, 1, 4, 3)).reshape(*images, -1)


def from_words(data: UInt8, rows: int, channels: int, bits: int, depth: int) -> npt.NDArray[Any]:
    """Inverse of :func:`to_words`."""
    words, planes = -(-channels // depth), bits // 8
    images = data.shape[:-1]
    block = data.reshape(-1, words, rows, planes, depth).transpose(0, 2, 1, 4, 3)
    block = np.ascontiguousarray(block).reshape(*images, rows, words * depth * planes)
    integers = block.view(np.int8 if planes == 1 else np.dtype("<i2"))
    return integers[..., :channels]


def pack_input(arch: ArchConfig, spec: InputSpec, images: npt.ArrayLike) -> UInt8:
    """A batch of images to the bytes of their input regions, ``[N, input_bytes]``."""
    batch = quantise(spec, as_batch(spec, images))
    if not spec.blocks:
        return to_words(batch, arch.depth)
    return np.concatenate(
        [to_words(batch[:, first : first + count], arch.depth) for first, count in spec.blocks],
        axis=1,
    )


def unpack_integers(arch: ArchConfig, spec: OutputSpec, region: UInt8) -> npt.NDArray[Any]:
    """The integers ``[…, rows, channels]`` of one output in output regions of images."""
    data = region[..., spec.offset : spec.offset + spec.size(arch.depth)]
    return from_words(data, spec.rows, spec.channels, spec.bits, arch.depth)


def output_mask(program: Program) -> UInt8:
    """255 for the bytes of a job's output region that hold results, 0 for what fills up words.

    The core promises nothing of the latter: what it had in the token memory or the array before.
    """
    image = np.zeros(program.output_bytes // program.batch, np.uint8)
    for spec in program.outputs:
        ones = np.full((spec.rows, spec.channels), -1, np.int8 if spec.bits == 8 else np.int16)
        words = to_words(ones, program.arch.depth)
        image[spec.offset : spec.offset + len(words)] |= words
    return np.tile(image, program.batch)


def formed(spec: OutputSpec, value: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Results ``[N, *shape]``, of their type, from the tensor ``[N, rows, channels]`` in reals."""
    count = len(value)
    value = value.reshape(count, -1, spec.channels) * spec.factor + spec.shift
    index, value = spec.index, value.reshape(count, -1)
    value = (value if index is None else value[:, index]).reshape(count, *spec.shape)
    kind = np.dtype(spec.dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        value = np.clip(np.rint(value), bounds.min, bounds.max)
    return value.astype(kind)


def unpack_output(arch: ArchConfig, spec: OutputSpec, regions: UInt8) -> npt.NDArray[Any]:
    """Values ``[N, *shape]`` of one output, of its type, from regions ``[N, output_bytes]``."""
    q = unpack_integers(arch, spec, regions)
    return formed(spec, (q.astype(np.float64) - spec.zero_point) * spec.scale)
