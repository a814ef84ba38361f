"""Detection: boxes with names, drawn on the picture.

Two heads of the transformer say for every patch which digit has its centre there, and where that
digit's box is; both are outputs of the core. The host keeps the surest of boxes that overlap.

    python -m examples.detect [--arch PRESET] [--scenes 6] [--least 0.4]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from examples.on_scenes import scene_parser, through_the_core
from models.metrics import Objects, objects
from models.scenes import CLASSES, NOTHING, SIDE

OUT = Path(__file__).resolve().parent.parent / "build" / "examples" / "detect.png"
ENLARGED = 5


def drawn(picture: npt.NDArray[np.uint8], seen: Objects) -> Image.Image:
    """A grey picture ``[side, side, 1]`` with boxes, names and probabilities."""
    large = ENLARGED * SIDE
    sheet = Image.fromarray(picture[..., 0]).resize((large, large), Image.Resampling.BICUBIC)
    sheet = sheet.convert("RGB")
    draw = ImageDraw.Draw(sheet)
    for label, (x, y, width, height), score in zip(*seen, strict=True):
        colour = f"hsl({36 * label}, 100%, 60%)"
        corner = large * (x - width / 2), large * (y - height / 2)
        end = large * (x + width / 2), large * (y + height / 2)
        draw.rectangle((*corner, *end), outline=colour, width=2)
        words = f" {CLASSES[label]}  {score:.0%} "
        draw.rectangle(draw.textbbox(corner, words), fill=colour)
        draw.text(corner, words, fill="black")
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Find digits in scenes of the test half."""
    parser = scene_parser("detect", "nano")
    parser.add_argument("--least", type=float, default=0.4, help="probability of what is shown")
    options = parser.parse_args(arguments)
    scenes, outputs = through_the_core(
        "detect", options.arch, options.scenes, ("logits", "boxes")
    )
    found = [objects(logits, boxes, least=options.least)
             for logits, boxes in zip(*outputs, strict=True)]
    sheets = [np.asarray(drawn(*each)) for each in zip(scenes.image, found, strict=True)]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(sheets)).save(OUT)
    for number, (seen, label) in enumerate(zip(found, scenes.label, strict=True)):
        names, truth = (
            " ".join(map(str, sorted(each))) for each in (seen.label, label[label != NOTHING])
        )
        print(f"scene {number}: found {names:10}truth {truth}")
    print(OUT.relative_to(OUT.parents[2]))


if __name__ == "__main__":
    main()
