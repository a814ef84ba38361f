"""Files to batches: pictures through the preprocessing specification, NumPy arrays as they are."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.text import short
from vitrify.program import preprocess as preprocessing
from vitrify.program.pack import finite, is_real
from vitrify.program.pictures import check_pixels
from vitrify.program.preprocess import Preprocess

from .arrays import read_array

ARRAY_SUFFIXES = (".npy", ".npz")
#: Pillow knows more formats, some of which start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_picture(
    path: Path, shape: tuple[int, int, int], spec: Preprocess
) -> npt.NDArray[np.uint8]:
    """A picture file as uint8 pixels ``[C, H, W]``, resized and cropped as ``spec`` says."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BackendError(
            "pictures need Pillow: install it with `pip install 'vitrify[compiler]'`"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures (bounded below) and odd tags
            with Image.open(path, formats=FORMATS) as image:
                check_pixels(*image.size)
                image.load()
    except UnidentifiedImageError as error:
        raise InputError(
            f"{str(path)!r} is no picture that Pillow can read ({', '.join(FORMATS)})"
        ) from error
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from error
    # Pillow's decoders raise anything for a damaged file; for a bomb, an exception of its own.
    except Exception as error:
        raise InputError(
            f"{str(path)!r} is no picture that Pillow can read: {short(str(error))}"
        ) from error
    try:
        return spec.picture(image, shape)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from error


def expand(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and the pictures and arrays in directories, by name."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(
                p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES + ARRAY_SUFFIXES
            )
            if not found:
                raise InputError(f"directory {str(path)!r} holds no picture and no NumPy file")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"input file {str(path)!r} does not exist")
    return files


def read_batch(
    paths: Iterable[Path], name: str, shape: tuple[int, int, int], preprocess: str | None
) -> npt.NDArray[Any]:
    """One batch from several files, in their order: uint8 pixels or floats ``[N, C, H, W]``.

    Parameters
    ----------
    paths : pictures, ``.npy``, ``.npz``, or directories of them
    name : of the model's input: picks the array in a ``.npz``
    shape : ``(C, H, W)`` of the model's input
    preprocess : specification for pictures and uint8 arrays

    Raises
    ------
    InputError
        For files that cannot be read or do not fit the model or each other.
    """
    spec = preprocessing.parse(preprocess) if preprocess is not None else None
    parts: list[npt.NDArray[Any]] = []
    for path in expand(paths):
        if path.suffix.lower() in ARRAY_SUFFIXES:
            parts.append(_as_images(read_array(path, name), shape, path))
        elif spec is None:
            raise InputError(
                f"picture {str(path)!r} needs to know how it becomes the model's input; "
                f"give --preprocess, for instance crop_pct=0.9,mean=0.5,std=0.5"
            )
        else:
            parts.append(read_picture(path, shape, spec)[None])
    if len({part.dtype == np.uint8 for part in parts}) > 1:
        parts = [_floats(part, name, preprocess) for part in parts]
    return np.concatenate(parts)


def read_floats(
    paths: Iterable[Path], name: str, shape: tuple[int, int, int], preprocess: str | None
) -> npt.NDArray[np.float32]:
    """As :func:`read_batch`, with pixels turned into the model's floats."""
    return _floats(read_batch(paths, name, shape, preprocess), name, preprocess)


def _floats(array: npt.NDArray[Any], name: str, preprocess: str | None) -> npt.NDArray[np.float32]:
    if array.dtype != np.uint8:
        if not is_real(array.dtype):
            raise InputError(f"input {name!r} must be float or uint8, not {array.dtype}")
        return finite(name, array)
    if preprocess is None:
        raise InputError(
            f"input {name!r} is uint8, but nothing says how pixels become the model's floats; "
            f"give --preprocess or a float array"
        )
    return preprocessing.parse(preprocess).normalise(array)


def _as_images(
    array: npt.NDArray[Any], shape: tuple[int, int, int], path: Path
) -> npt.NDArray[Any]:
    """``[N, C, H, W]`` from that, with the channels last, or from a single image."""
    c, h, w = shape
    batch = array[None] if array.ndim == 3 else array
    if batch.ndim == 4 and batch.shape[1:] == (h, w, c) != shape:
        batch = batch.transpose(0, 3, 1, 2)
    if batch.ndim != 4 or batch.shape[1:] != shape:
        raise InputError(
            f"{str(path)!r} has the shape {list(array.shape)}; the model takes [N, {c}, {h}, {w}]"
        )
    return batch
