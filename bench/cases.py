"""What is measured: models, the pictures that calibrate and test them, and the presets."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.calibration import digits_calibration
from models.datasets import cifar10, digits, half_turned, quarter_turns
from vitrify.arch.config import ArchConfig
from vitrify.compiler import compile_model
from vitrify.program import Program, preprocess
from vitrify.quant.wanted import EIGHT, NARROW, Weights

ROOT = Path(__file__).resolve().parent.parent
#: Data sets and third-party models, no part of the repository; cases without them are left out.
DATA = ROOT.parent / "shared" / "data"

Float32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A model with its pictures.

    ``calibration`` and ``test`` give float ``[N, C, H, W]`` (and labels); ``test`` those of task 0.
    """

    name: str
    model: Path
    preprocess: str
    presets: tuple[str, ...]
    calibration: Callable[[], Float32]
    test: Callable[[], tuple[Float32, Labels]]
    #: Test pictures of the tasks behind the first, for a model that has some.
    more_tasks: tuple[Callable[[], tuple[Float32, Labels]], ...] = ()
    weights: Weights = EIGHT

    @property
    def available(self) -> bool:
        """Whether model and data are at hand."""
        return self.model.is_file()

    def compile(self, arch: ArchConfig) -> Program:
        """The program for ``arch``; two compilations are equal."""
        # What a compilation proves is proved by the tests; here every tensor is compared anyway.
        return compile_model(
            self.model, arch, self.calibration(), preprocess=self.preprocess, verify=False,
            weights=self.weights,
        )

    def picture(self) -> Float32:
        """The first test picture, ``[1, C, H, W]``."""
        return self.test()[0][:1]


def _pixels(spec: str, images: npt.NDArray[np.uint8]) -> Float32:
    return preprocess.parse(spec).normalise(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _pictures(spec: str, files: list[Path], shape: tuple[int, int, int]) -> Float32:
    return preprocess.parse(spec).apply([Image.open(file) for file in files], shape)


_DIGITS = "mean=0.305,std=0.376"
_CIFAR = "mean=0.4914:0.4822:0.4465,std=0.247:0.2435:0.2616"
_AUGREG = "crop_pct=0.9,mean=0.5,std=0.5"
_SAMPLES = DATA / "imagenet_samples"


def _digits_test() -> tuple[Float32, Labels]:
    test = digits("test")
    return _pixels(_DIGITS, test.image), test.label


def _cifar_test() -> tuple[Float32, Labels]:
    test = cifar10(DATA / "cifar10", "test")
    return _pixels(_CIFAR, test.image), test.label


def _turns_test() -> tuple[Float32, Labels]:
    test = quarter_turns(cifar10(DATA / "cifar10", "test").image)
    return _pixels(_CIFAR, test.image), test.label


def _cifar_and_turned() -> Float32:
    return _pixels(_CIFAR, half_turned(cifar10(DATA / "cifar10", "train").image[:256]))


def _cifar_calibration() -> Float32:
    return _pixels(_CIFAR, cifar10(DATA / "cifar10", "train").image[:256])


def _imagenet_test() -> tuple[Float32, Labels]:
    with (_SAMPLES / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "eval"]
    files = [_SAMPLES / "eval" / row["file"] for row in rows]
    labels = np.array([int(row["label"]) for row in rows])
    return _pictures(_AUGREG, files, (3, 224, 224)), labels


CASES = (
    Case("digits_vit", ROOT / "models/digits_vit/model.onnx", _DIGITS, ("nano", "ulx3s"),
         lambda: _pixels(_DIGITS, digits_calibration()), _digits_test),
    Case("cifar10_vit", ROOT / "models/cifar10_vit/model.onnx", _CIFAR,
         ("ulx3s", "pynq-z2", "reference", "kv260"), _cifar_calibration, _cifar_test),
    Case("cifar10_hybrid_vit", ROOT / "models/cifar10_hybrid_vit/model.onnx", _CIFAR,
         ("pynq-z2", "kv260", "reference"), _cifar_calibration, _cifar_test),
    Case("cifar10_moe_vit", ROOT / "models/cifar10_moe_vit/model.onnx", _CIFAR,
         ("reference", "kv260"), _cifar_and_turned, _cifar_test, (_turns_test,)),
    Case("vit_tiny_imagenet",
         DATA / "vit_tiny_imagenet/vit_tiny_patch16_224_opset17_ts.onnx", _AUGREG,
         ("ulx3s", "pynq-z2", "reference", "kv260", "zcu102"),
         lambda: _pictures(_AUGREG, sorted((_SAMPLES / "calib").iterdir()), (3, 224, 224)),
         _imagenet_test),
)

#: With weights of four bits: on cores that have more products for them, and on one with codes.
IN_FOUR_BITS = tuple(
    replace(case, name=f"{case.name}_w4", presets=("kv260-w4", "ulx3s-w4", "kv260"),
            weights=Weights(NARROW))
    for case in CASES if case.name == "vit_tiny_imagenet"
)
