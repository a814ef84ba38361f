"""Sizes of the image that are given when a model is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.tails import MODEL, exported
from vitrify.arch.errors import InputError, ModelError
from vitrify.cli.main import main
from vitrify.frontend import canonicalise, load
from vitrify.ir import evaluate, shape_of

IMAGES = np.random.default_rng(2).normal(size=(2, 3, 16, 16)).astype(np.float32)


def open_sizes(folder: Path) -> Path:
    """The small transformer for images of any size: positions are resized to what comes."""
    model = exported()
    graph = model.graph
    height, width = graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_param, width.dim_param = "height", "width"
    # what the exporter found for one size
    del graph.value_info[:]
    add = next(node for node in graph.node if node.name == "/Add")
    old = next(value for value in graph.initializer if value.name == add.input[1])
    table = numpy_helper.to_array(old)  # the class token's, then 4 x 4 of 16 channels
    patches = graph.node[0].output[0]
    made = [
        helper.make_node("Shape", [patches], ["p.shape"], start=2),
        helper.make_node("Concat", ["p.lead", "p.shape"], ["p.sizes"], axis=0),
        helper.make_node("Resize", ["p.small", "", "", "p.sizes"], ["p.map"], mode="linear"),
        helper.make_node("Reshape", ["p.map", "p.form"], ["p.flat"]),
        helper.make_node("Transpose", ["p.flat"], ["p.rows"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["p.first", "p.rows"], ["p.whole"], axis=1),
    ]
    for place, node in enumerate(made, 1):
        graph.node.insert(place, node)
    add.input[1] = "p.whole"
    small = table[:, 1:].reshape(1, 4, 4, 16).transpose(0, 3, 1, 2)[:, :, ::2, ::2]
    for name, array in (("p.small", np.ascontiguousarray(small)), ("p.first", table[:, :1]),
                        ("p.lead", np.array([1, 16])), ("p.form", np.array([1, 16, -1]))):
        graph.initializer.append(numpy_helper.from_array(array, name))
    path = folder / "open.onnx"
    onnx.save(model, path)
    return path


def test_positions_are_folded_for_the_size(tmp_path: Path) -> None:
    model = load(open_sizes(tmp_path), (3, 16, 16))
    canonical = canonicalise(model)
    assert shape_of(canonical.graph.inputs[0]) == ("N", 3, 16, 16)
    name = model.graph.outputs[0].name or ""
    wanted, found = (evaluate(m, {"image": IMAGES}, [name])[name] for m in (model, canonical))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_without_a_size_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"dynamic size height, width.*give --input-shape C,H,W"):
        load(open_sizes(tmp_path))


def test_a_fixed_size_stays() -> None:
    with pytest.raises(InputError, match=r"--input-shape 3,32,32 does not fit input 'image'"):
        load(MODEL, (3, 32, 32))
    assert shape_of(load(MODEL, (3, 16, 16)).graph.inputs[0])[1:] == (3, 16, 16)


@pytest.mark.parametrize("size", [(16, 16), (3, 16, 0)])
def test_a_size_that_is_none_of_an_image(size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"size .* of input 'image' is none such as 3,224,224"):
        load(MODEL, size)


@pytest.mark.parametrize("text", ["3,16", "3,16,0", "a,b,c"])
def test_a_size_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(MODEL), "--input-shape", text]) == 2
    assert " such as 3,224,224" in capsys.readouterr().err


def test_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    target = tmp_path / "out.vfy"
    assert main(["compile", str(open_sizes(tmp_path)), "--arch", "nano", "--input-shape", "3x16x16",
                 "--calib", str(tmp_path / "images.npy"), "-o", str(target)]) == 0  # fmt: skip
    assert main(["estimate", str(target), "--input-shape", "3,16,16"]) == 2
    assert "--input-shape would belong to a model" in capsys.readouterr().err
