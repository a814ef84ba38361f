"""Calibration pictures that a fresh machine has: they ship inside scikit-learn and scikit-image.

Nothing here downloads: only files that are part of the two wheels are read.
"""

from __future__ import annotations

from importlib import resources
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.datasets import digits

__all__ = ["PHOTOGRAPHS", "digits_calibration", "photo_crops", "photographs"]

#: Colour photographs inside the scikit-image wheel (none of its drawings and micrographs).
_SKIMAGE = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)
#: Colour photographs inside the scikit-learn wheel.
_SKLEARN = ("china.jpg", "flower.jpg")
#: Names of all the photographs, in the order of :func:`photographs`.
PHOTOGRAPHS = tuple(PurePath(name).stem for name in _SKIMAGE + _SKLEARN)
_SEED = 2024
#: Smallest part of a photograph's shorter side that a crop covers: below it there is only texture.
_SMALLEST_CROP = 0.25


def digits_calibration(n: int = 256) -> npt.NDArray[np.uint8]:
    """Return the first ``n`` pictures of the digits' training half, uint8 ``[n, 8, 8, 1]``."""
    return digits("train").image[:n]


def photographs() -> list[Image.Image]:
    """Open the sample photographs, RGB, in the order of :data:`PHOTOGRAPHS`."""
    packages = [("skimage", ("data",), _SKIMAGE), ("sklearn", ("datasets", "images"), _SKLEARN)]
    photos = []
    for package, folder, names in packages:
        for name in names:
            with resources.files(package).joinpath(*folder, name).open("rb") as file:
                photos.append(Image.open(file).convert("RGB"))
    return photos


def photo_crops(n: int, size: int, *, seed: int = _SEED) -> npt.NDArray[np.uint8]:
    """Cut square pieces out of the sample photographs and shrink them.

    Parameters
    ----------
    n : int
        Number of pieces, taken from the photographs in turn.
    size : int
        Side of a piece after shrinking, pixels.
    seed : int
        Of the random places and extents; the same seed gives the same pieces.

    Returns
    -------
    ndarray
        uint8 ``[n, size, size, 3]``.
    """
    rng = np.random.default_rng(seed)
    photos = photographs()
    crops = np.empty((n, size, size, 3), np.uint8)
    for index in range(n):
        photo = photos[index % len(photos)]
        shorter = min(photo.size)
        side = int(rng.integers(max(size, int(_SMALLEST_CROP * shorter)), shorter, endpoint=True))
        left, top = (int(rng.integers(extent - side, endpoint=True)) for extent in photo.size)
        piece = photo.crop((left, top, left + side, top + side))
        if rng.random() < 0.5:
            piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crops[index] = np.asarray(piece.resize((size, size), Image.Resampling.BICUBIC))
    return crops
