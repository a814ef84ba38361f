"""The float backend for models of several inputs, images among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vitrify.arch.errors import InputError
from vitrify.runtime import InferenceSession

RNG = np.random.default_rng(12)


def summed(folder: Path, inputs: dict[str, tuple[int, list[int]]]) -> Path:
    """A model that adds up means of its inputs, ``[N, 1]`` of each."""
    nodes, names = [], []
    for name, (_, shape) in inputs.items():
        cast = helper.make_node("Cast", [name], [f"{name}.f"], to=TensorProto.FLOAT)
        axes = list(range(1, len(shape) + 1))
        nodes += [cast, helper.make_node("ReduceMean", [f"{name}.f"], [f"{name}.m"], axes=axes)]
        nodes += [helper.make_node("Flatten", [f"{name}.m"], [f"{name}.v"])]
        names.append(f"{name}.v")
    nodes.append(helper.make_node("Sum", names, ["y"]))
    graph = helper.make_graph(
        nodes, "summed",
        [helper.make_tensor_value_info(n, k, ["N", *s]) for n, (k, s) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


def test_pictures_are_preprocessed_beside_other_inputs(tmp_path: Path) -> None:
    path = summed(tmp_path, {
        "vector": (TensorProto.FLOAT, [5]),
        "image": (TensorProto.FLOAT, [3, 4, 6]),
        "pixels": (TensorProto.UINT8, [1, 4, 6]),
    })  # fmt: skip
    feed = {
        "vector": RNG.normal(size=(2, 5)).astype(np.float32),
        "image": RNG.integers(0, 256, (2, 4, 6, 3), np.uint8),
        "pixels": RNG.integers(0, 256, (2, 1, 4, 6), np.uint8),
    }
    (found,) = InferenceSession(path, "float", preprocess="mean=0.5,std=0.25").run(None, feed)
    ready = (feed["image"] / 255 - 0.5) / 0.25
    wanted = feed["vector"].mean(1) + ready.mean((1, 2, 3)) + feed["pixels"].mean((1, 2, 3))
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5)
    with pytest.raises(InputError, match="'image' is uint8, but nothing says how pixels become"):
        InferenceSession(path, "float").run(None, feed)


def test_preprocessing_of_no_image(tmp_path: Path) -> None:
    path = summed(tmp_path, {"x": (TensorProto.FLOAT, [5])})
    with pytest.raises(InputError, match="how pictures become images, and the model takes none"):
        InferenceSession(path, "float", preprocess="mean=0.5")


def test_a_model_of_pixels_takes_no_preprocessing_that_changes_them(tmp_path: Path) -> None:
    path = summed(tmp_path, {"image": (TensorProto.UINT8, [3, 8, 8])})
    pixels = RNG.integers(0, 256, (2, 3, 8, 8), np.uint8)
    (plain,) = InferenceSession(path, "float").run(None, {"image": pixels})
    (same,) = InferenceSession(path, "float", preprocess="none").run(None, {"image": pixels})
    np.testing.assert_array_equal(same, plain)
    with pytest.raises(InputError, match=r"'image' takes pixels .* preprocess 'imagenet' changes"):
        InferenceSession(path, "float", preprocess="imagenet").run(None, {"image": pixels})
