"""Scenes: handwritten digits and pieces of digits on photographs, with masks and boxes.

Everything in them is real, and ships inside scikit-learn and scikit-image: 8×8 digits, enlarged
to different sizes, and grey pieces of the sample photographs.  What is synthetic is the
arrangement.  Digits and photographs of the test half are in no scene of the training half.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.calibration import PHOTOGRAPHS, photo_crops
from models.datasets import digits

__all__ = ["CLASSES", "MOST", "NOTHING", "SIDE", "Painter", "Scenes"]

#: Side of a scene, pixels.
SIDE = 48
#: Digits in a scene, at most.
MOST = 4
#: Names of the classes: the digits, then what is none.
CLASSES = (*map(str, range(10)), "background")
#: The label of what is no digit: the class behind the digits.
NOTHING = 10
_SMALLEST, _LARGEST = 16, 22  # pixels of an enlarged digit's side
_CROPS = {"train": 400, "test": 200}
#: Photographs of the test half; the others are the training half's.
_TEST_PHOTOGRAPHS = ("coffee", "china")
_TRIES = 20  # places that are tried for a digit; without room it is left out


class Scenes(NamedTuple):
    """Scenes and what is in them.

    Attributes
    ----------
    image : ndarray
        uint8 ``[n, SIDE, SIDE, 1]``.
    mask : ndarray
        uint8 ``[n, SIDE, SIDE]``, the class of every pixel: 0 to 9, or :data:`NOTHING`.
    label : ndarray
        int64 ``[n, MOST]``, the digits; :data:`NOTHING` behind the last.
    box : ndarray
        float32 ``[n, MOST, 4]``: the digits' centres and extents (x, y, width, height), as shares
        of the scene; zeros behind the last.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    box: npt.NDArray[np.float32]


class Painter:
    """Paints scenes of one half; the same half and seed paint the same ones in the same order.

    Parameters
    ----------
    split : {"train", "test"}
        Whose digits and photographs.
    seed : int
        Of the arrangement.
    """

    def __init__(self, split: Literal["train", "test"], seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        pictures = digits(split)
        self._digits = pictures.image[..., 0], pictures.label
        mine = [(name in _TEST_PHOTOGRAPHS) == (split == "test") for name in PHOTOGRAPHS]
        crops = photo_crops(_CROPS[split], SIDE).mean(axis=3)
        self._photos = crops[np.resize(mine, len(crops))]

    def paint(self, count: int) -> Scenes:
        """Paint the next ``count`` scenes."""
        scenes = Scenes(
            np.empty((count, SIDE, SIDE, 1), np.uint8),
            np.full((count, SIDE, SIDE), NOTHING, np.uint8),
            np.full((count, MOST), NOTHING),
            np.zeros((count, MOST, 4), np.float32),
        )
        for number in range(count):
            self._one(scenes, number)
        return scenes

    def _one(self, scenes: Scenes, number: int) -> None:
        """Paint a scene: a photograph, pieces of digits, then digits that do not overlap."""
        rng, mask = self._rng, scenes.mask[number]
        canvas = self._photos[rng.integers(len(self._photos))] * rng.uniform(0.2, 0.6)
        for _ in range(rng.integers(5)):
            ink, _ = self._stroke(int(rng.integers(2, 4)))
            self._blend(canvas, ink, *rng.integers(SIDE - np.array(ink.shape), endpoint=True))
        found = 0
        for _ in range(rng.integers(2, MOST, endpoint=True)):
            ink, label = self._stroke(None)
            ys, xs = np.nonzero(ink > 0.5)
            for _ in range(_TRIES):
                top, left = rng.integers(SIDE - np.array(ink.shape), endpoint=True)
                if (mask[top + ys.min() : top + ys.max() + 1,
                         left + xs.min() : left + xs.max() + 1] == NOTHING).all():  # fmt: skip
                    break
            else:
                continue
            self._blend(canvas, ink, top, left)
            mask[top + ys, left + xs] = label
            low = np.array([left + xs.min(), top + ys.min()])
            high = np.array([left + xs.max(), top + ys.max()]) + 1
            scenes.box[number, found] = np.concatenate([(low + high) / 2, high - low]) / SIDE
            scenes.label[number, found] = label
            found += 1
        scenes.image[number, :, :, 0] = np.rint(canvas)

    def _stroke(self, piece: int | None) -> tuple[npt.NDArray[np.float64], int]:
        """Enlarge a digit, or a square of so many of its pixels: how much ink is where, 0 to 1."""
        images, labels = self._digits
        chosen = self._rng.integers(len(images))
        small, scale = images[chosen], self._rng.uniform(_SMALLEST, _LARGEST) / 8
        if piece is not None:
            top, left = self._rng.integers(1, 8 - piece, size=2)
            small = small[top : top + piece, left : left + piece]
        side = round(scale * len(small))
        large = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        return np.clip(1.5 * np.asarray(large) / 255 - 0.25, 0, 1), int(labels[chosen])

    def _blend(
        self, canvas: npt.NDArray[np.float64], ink: npt.NDArray[np.float64], top: int, left: int
    ) -> None:
        """Draw with light ink, in place."""
        height, width = ink.shape
        under = canvas[top : top + height, left : left + width]
        under += ink * (self._rng.uniform(180, 255) - under)
