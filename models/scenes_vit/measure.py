"""Measure both models on the test half's scenes: floats in ONNX Runtime, integers on golden.

Run from the repository's root; ``--arch`` takes the name of a preset::

    python -m models.scenes_vit.measure [--scenes 1000] [--arch ulx3s]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from models.metrics import Objects, average_precision, confusion, mean_iou, objects
from models.scenes import CLASSES, NOTHING, Painter, Scenes
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.program import Application, Program, preprocess
from vitrify.runtime import InferenceSession

HERE = Path(__file__).resolve().parent
PREPROCESS = "mean=0.2,std=0.25"
CALIBRATION = 64
#: Probability below which an object does not count for the average precision.
LEAST = 0.05
_BATCH = 50

Array = npt.NDArray[np.float32]
Session = InferenceSession | onnxruntime.InferenceSession


def model_input(scenes: Scenes) -> Array:
    """The models' input for scenes, float32 ``[n, 1, side, side]``."""
    pixels = np.ascontiguousarray(scenes.image.transpose(0, 3, 1, 2))
    return preprocess.parse(PREPROCESS).normalise(pixels)


def compiled(name: str, arch: str) -> Program | Application:
    """``segment`` or ``detect`` for a preset, calibrated on scenes of the training half."""
    calibration = model_input(Painter("train").paint(CALIBRATION))
    path = HERE / f"{name}.onnx"
    return compile_application(path, preset(arch), calibration, preprocess=PREPROCESS)


def _batches(scenes: Scenes) -> Iterator[Scenes]:
    for start in range(0, len(scenes.image), _BATCH):
        yield Scenes._make(field[start : start + _BATCH] for field in scenes)


def segmentation(session: Session, scenes: Scenes) -> tuple[float, float]:
    """Mean intersection over union, of all classes, and of digit and background alone."""
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for batch in _batches(scenes):
        (logits,) = session.run(None, {"image": model_input(batch)})
        counts += confusion(logits.argmax(axis=1), batch.mask, len(CLASSES))
    two = np.add.reduceat(np.add.reduceat(counts, [0, NOTHING]), [0, NOTHING], axis=1)
    return mean_iou(counts), mean_iou(two)


def detection(session: Session, scenes: Scenes) -> tuple[float, float]:
    """Average precision at an overlap of a half: of the digits, and of boxes whatever the digit."""
    found: list[Objects] = []
    wanted: list[Objects] = []
    for batch in _batches(scenes):
        said = session.run(None, {"image": model_input(batch)})
        for logits, boxes in zip(*said, strict=True):
            found.append(objects(logits, boxes, least=LEAST))
        for label, box in zip(batch.label, batch.box, strict=True):
            there = label != NOTHING
            wanted.append(Objects(label[there], box[there], np.ones(there.sum())))
    one_class = [
        [each._replace(label=np.zeros_like(each.label)) for each in side]
        for side in (found, wanted)
    ]
    return average_precision(found, wanted, NOTHING), average_precision(*one_class, classes=1)


MEASURES = {
    "segment": (segmentation, "mIoU", "digit and background alone"),
    "detect": (detection, "mAP@0.5", "boxes whatever the digit"),
}


def main() -> None:
    """Parse the command line, measure."""
    parser = argparse.ArgumentParser(prog="python -m models.scenes_vit.measure")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--arch", default="ulx3s")
    args = parser.parse_args()
    scenes = Painter("test").paint(args.scenes)
    for name, (measure, title, other) in MEASURES.items():
        floats = onnxruntime.InferenceSession(HERE / f"{name}.onnx")
        with InferenceSession(compiled(name, args.arch)) as integers:
            for kind, session in (("float", floats), (args.arch, integers)):
                value, looser = measure(session, scenes)
                print(f"{name}, {kind}: {title} {value:.4f} ({other}: {looser:.4f}), "
                      f"{args.scenes} scenes", flush=True)


if __name__ == "__main__":
    main()
