"""Labelled pictures the models are trained and measured on, as uint8 NHWC arrays."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "DIGITS_MAXIMUM", "TURNS", "Pictures", "cifar10", "digits", "half_turned", "quarter_turns",
]

#: Largest pixel value in scikit-learn's digits (they have 17 grey levels, 0 to 16).
DIGITS_MAXIMUM = 16
#: Classes of :func:`quarter_turns`.
TURNS = ("0°", "90°", "180°", "270°")
_DIGITS_SEED = 2024
_DIGITS_TEST_SHARE = 0.25


class Pictures(NamedTuple):
    """Pictures with their labels.

    Attributes
    ----------
    image : ndarray
        uint8 ``[n, height, width, channels]``.
    label : ndarray
        int64 ``[n]``.
    classes : tuple of str
        Name of each label.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    classes: tuple[str, ...]


def cifar10(directory: Path, split: Literal["train", "test"]) -> Pictures:
    """Decode one half of CIFAR-10.

    Parameters
    ----------
    directory : Path
        Holds ``train.npz`` and ``test.npz``, each with the arrays ``jpeg`` (the files' bytes,
        concatenated), ``offset`` (where each starts, and the end), ``label`` and ``classes``.
    split : {"train", "test"}
        50,000 pictures or 10,000.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    """
    path = Path(directory) / f"{split}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"CIFAR-10 file {path} does not exist; name its folder with --data")
    with np.load(path, allow_pickle=False) as archive:
        jpeg, offset = archive["jpeg"].tobytes(), archive["offset"].tolist()
        label, classes = archive["label"].astype(np.int64), archive["classes"].tolist()
    image = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpeg[start:end])).convert("RGB"))
            for start, end in itertools.pairwise(offset)
        ]
    )
    return Pictures(image, label, tuple(classes))


def digits(split: Literal["train", "test"]) -> Pictures:
    """Return a fixed, seeded half of scikit-learn's 1,797 handwritten 8x8 digits.

    Pixels are stretched from 0..16 to 0..255, as a picture file would hold them.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    image = np.rint(bunch.images * (255 / DIGITS_MAXIMUM)).astype(np.uint8)[..., None]
    order = np.random.default_rng(_DIGITS_SEED).permutation(len(image))
    tests = round(_DIGITS_TEST_SHARE * len(image))
    chosen = order[:tests] if split == "test" else order[tests:]
    names = tuple(str(digit) for digit in range(10))
    return Pictures(image[chosen], bunch.target[chosen].astype(np.int64), names)


def quarter_turns(image: npt.NDArray[np.uint8]) -> Pictures:
    """Turn picture i by i % 4 quarters, anticlockwise; the label is how often it was turned."""
    label = np.arange(len(image)) % 4
    turned = [np.rot90(one, i % 4) for i, one in enumerate(image)]
    return Pictures(np.stack(turned), label, TURNS)


def half_turned(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Every other picture turned, each way as often: what both tasks are calibrated with."""
    mixed = image.copy()
    mixed[1::2] = quarter_turns(image[1::2]).image
    return mixed
