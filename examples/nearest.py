"""Nearest neighbours among features of an inner layer: labels without a classifier.

A tensor inside the model becomes its output, the core computes it for every picture, and the host
looks for the pictures that are most alike.

    python -m examples.nearest [--references 400] [--queries 100] [--neighbours 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx.utils import Extractor

from models.datasets import digits
from vitrify.arch.presets import preset
from vitrify.compiler import compile_model
from vitrify.program import Program, preprocess
from vitrify.runtime import InferenceSession

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "examples"
PREPROCESS = "mean=0.305,std=0.376"


def feature_program() -> Program:
    """The digits model up to what its head reads: 32 features of a picture."""
    model = onnx.shape_inference.infer_shapes(
        onnx.load(ROOT / "models" / "digits_vit" / "model.onnx")
    )
    head = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    inner = Extractor(model).extract_model([model.graph.input[0].name], [head.input[0]])
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "digits_features.onnx"
    onnx.save(inner, path)
    pixels = np.ascontiguousarray(digits("train").image[:64].transpose(0, 3, 1, 2))
    calibration = preprocess.parse(PREPROCESS).normalise(pixels)
    return compile_model(path, preset("nano"), calibration, preprocess=PREPROCESS)


def directions(
    session: InferenceSession, pictures: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Features of pictures, each of length one: products of two are the cosines between them."""
    features, = session.run(None, {session.get_inputs()[0].name: pictures})
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Name digits by the pictures that are most like them."""
    parser = argparse.ArgumentParser(prog="python -m examples.nearest")
    parser.add_argument("--references", type=int, default=400, help="pictures that are known")
    parser.add_argument("--queries", type=int, default=100, help="pictures to name")
    parser.add_argument("--neighbours", type=int, default=5)
    options = parser.parse_args(arguments)
    train, test = digits("train"), digits("test")
    with InferenceSession(feature_program()) as session:
        known = directions(session, train.image[: options.references])
        asked = directions(session, test.image[: options.queries])
    nearest = np.argsort(-asked @ known.T, axis=1)[:, : options.neighbours]
    votes = train.label[nearest]
    found = np.array([np.bincount(row).argmax() for row in votes])
    right = np.mean(found == test.label[: options.queries])
    print(f"{known.shape[1]} features; the {options.neighbours} nearest of {len(known)} name "
          f"{right:.0%} of {len(asked)} digits")
    for label, row in list(zip(test.label, votes, strict=False))[:3]:
        print(f"a {label} is most like pictures of {', '.join(map(str, row))}")


if __name__ == "__main__":
    main()
