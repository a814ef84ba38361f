"""The small transformer as a model of tokens, words, vectors or several images, with a feed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from tests.support.tails import exported

RNG = np.random.default_rng(6)
#: What :data:`RNG` begins with, for tests that are to see the same numbers whichever others run.
START = RNG.bit_generator.state
#: The tokens that the small transformer makes of an image.
TOKENS, SIZE = "/Add_output_0", [17, 16]
FLOAT = TensorProto.FLOAT

Feed = dict[str, np.ndarray]


def behind(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[Any]]], folder: Path,
    **constants: np.ndarray,
) -> Path:
    """The blocks of the small transformer behind nodes that make their tokens of inputs."""
    whole = onnx.shape_inference.infer_shapes(exported())
    result = whole.graph.output[0].name
    model = Extractor(whole).extract_model([TOKENS], [result])
    graph = model.graph
    for place, node in enumerate(nodes):
        node.name = node.output[0]
        graph.node.insert(place, node)
    del graph.input[:]
    graph.input.extend(
        helper.make_tensor_value_info(name, kind, ["N", *shape])
        for name, (kind, shape) in inputs.items()
    )
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items())
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def normal(*shape: int) -> np.ndarray:
    """Eight samples."""
    return RNG.normal(size=(8, *shape)).astype(np.float32)


def tokens(folder: Path) -> tuple[Path, Feed]:
    """Tokens alone."""
    path = behind([helper.make_node("Identity", ["x"], [TOKENS])], {"x": (FLOAT, SIZE)}, folder)
    return path, {"x": normal(*SIZE)}


def words(folder: Path) -> tuple[Path, Feed]:
    """Numbers of words, which a table turns into tokens, and a vector that is added to each."""
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["looked"]),
        helper.make_node("MatMul", ["condition", "matrix"], ["vector"]),
        helper.make_node("Unsqueeze", ["vector", "one"], ["row"]),
        helper.make_node("Add", ["looked", "row"], [TOKENS]),
    ]
    path = behind(
        nodes, {"words": (TensorProto.INT64, [17]), "condition": (FLOAT, [8])}, folder,
        table=normal(16).repeat(5, axis=0), matrix=normal(16), one=np.array([1]),
    )
    return path, {"words": RNG.integers(0, 40, (8, 17)), "condition": normal(8)}


def two_images(folder: Path) -> tuple[Path, Feed]:
    """Two images of different widths, whose pixels are the tokens."""
    nodes = [
        helper.make_node("Concat", ["left", "right"], ["maps"], axis=3),
        helper.make_node("Reshape", ["maps", "form"], ["lines"]),
        helper.make_node("Transpose", ["lines"], [TOKENS], perm=[0, 2, 1]),
    ]
    path = behind(nodes, {"left": (FLOAT, [16, 1, 9]), "right": (FLOAT, [16, 1, 8])}, folder,
                  form=np.array([0, 16, -1]))  # fmt: skip
    return path, {"left": normal(16, 1, 9), "right": normal(16, 1, 8)}
