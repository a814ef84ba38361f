"""Segmentation: a class for every pixel, painted over the picture.

The head of the transformer is a linear layer that gives the logits of the pixels of a patch; that
they become an image costs the core nothing, because the host reads them in that order.

    python -m examples.segment [--arch PRESET] [--scenes 6]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor

from examples.on_scenes import scene_parser, through_the_core
from models.metrics import confusion, mean_iou
from models.scenes import CLASSES, NOTHING

OUT = Path(__file__).resolve().parent.parent / "build" / "examples" / "segment.png"
ENLARGED = 4
COLOURS = np.array([ImageColor.getrgb(f"hsl({36 * digit}, 100%, 55%)") for digit in range(10)])


def painted(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.integer]) -> Image.Image:
    """A grey picture ``[side, side, 1]``, and the digits that a mask has in their colours."""
    colours = np.repeat(picture, 3, axis=2)
    digit = mask != NOTHING
    colours[digit] = 0.3 * colours[digit] + 0.7 * COLOURS[mask[digit]]
    large = [ENLARGED * size for size in mask.shape]
    return Image.fromarray(colours).resize((large[1], large[0]), Image.Resampling.NEAREST)


def main(arguments: Sequence[str] | None = None) -> None:
    """Segment scenes of the test half."""
    options = scene_parser("segment", "ulx3s").parse_args(arguments)
    scenes, (logits,) = through_the_core("segment", options.arch, options.scenes, ("logits",))
    found = logits.argmax(axis=1)
    rows = [
        np.hstack([np.asarray(painted(*pair)) for pair in zip(scenes.image, masks, strict=True)])
        for masks in (np.full_like(found, NOTHING), found, scenes.mask)
    ]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(OUT)
    for number, (mask, truth) in enumerate(zip(found, scenes.mask, strict=True)):
        seen = [CLASSES[name] for name in np.unique(mask) if (mask == name).sum() > 20]
        print(f"scene {number}: {', '.join(seen):28}"
              f"{(mask == truth).mean():.1%} of the pixels are right")
    print(f"mIoU of these scenes: {mean_iou(confusion(found, scenes.mask, len(CLASSES))):.3f}\n"
          f"{OUT.relative_to(OUT.parents[2])}: pictures, what was found, the truth")


if __name__ == "__main__":
    main()
