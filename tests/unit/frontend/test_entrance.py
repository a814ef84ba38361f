"""Images as people have them: channels last, pixels, floats of any width."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.ratio import decibel
from tests.support.tails import exported
from vitrify.arch.errors import InputError
from vitrify.arch.presets import preset
from vitrify.cli.main import main
from vitrify.compiler import compile_model
from vitrify.frontend import is_channels_last, load
from vitrify.ir import evaluate, shape_of
from vitrify.ir.layout import channels_last
from vitrify.program import Program
from vitrify.runtime import InferenceSession, open_model

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
MEAN, STD = np.float32([120, 115, 100]), np.float32([58, 57, 56])
IMAGES = (PIXELS - MEAN) / STD
BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
FIRST = {"perm": [0, 3, 1, 2]}

Step = tuple[str, list[str], dict[str, Any]]
NORMALISE: list[Step] = [
    ("Cast", [], {"to": TensorProto.FLOAT}), ("Sub", ["mean"], {}), ("Div", ["std"], {}),
]  # fmt: skip


def behind(
    steps: list[Step], folder: Path, *, kind: int = TensorProto.FLOAT,
    shape: tuple[int | str, ...] = ("N", 16, 16, 3),
) -> Path:
    """The small transformer behind ``steps``, each of what the one before gives and constants."""
    model = exported()
    graph = model.graph
    name = graph.input[0].name
    last = f"{name}.given" if steps else name
    for node in graph.node:
        node.input[:] = [last if read == name else read for read in node.input]
    reads = name
    for number, (op_type, more, attributes) in enumerate(steps):
        made = last if number == len(steps) - 1 else f"{name}.{number}"
        node = helper.make_node(op_type, [reads, *more], [made], made, **attributes)
        graph.node.insert(number, node)
        reads = made
    graph.input[0].CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in (("mean", MEAN), ("std", STD))
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def compiled(path: Path, images: np.ndarray, **options: Any) -> Program:
    """The program, as it comes back from its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no photograph
        program = compile_model(path, preset("nano"), images, **options)
    program.save(path.with_suffix(".vfy"))
    again = open_model(path.with_suffix(".vfy"))
    assert isinstance(again, Program)
    return again


@pytest.mark.parametrize(("nodes", "shape", "last"), [
    ([("Transpose", ["x"], {"perm": [0, 3, 1, 2]})], (1, 3, 3, 3), True),
    ([("Cast", ["x"], {"to": 1}), ("Transpose", ["t0"], {"perm": [0, 3, 1, 2]})],
     ("N", "H", "W", 3), True),
    ([("Transpose", ["x"], {"perm": [0, 2, 3, 1]})], (1, 8, 8, 3), False),
    ([("Sub", ["x", "w"], {}), ("Conv", ["t0", "w"], {})], (1, 8, 8, 3), False),
    ([("Reshape", ["x", "w"], {})], (1, 8, 8, 3), True),
    ([("Reshape", ["x", "w"], {})], (1, 3, 8, 3), False),
    ([("Reshape", ["x", "w"], {})], (1, 8, 8, 8), False),
    ([("Cast", ["x"], {"to": 1}), ("Add", ["t0", "t0"], {})], (1, "H", "W", 1), True),
    # of readers that differ the first one says it
    ([("Transpose", ["x"], FIRST), *[("Conv", ["x", "w"], {})] * 8], (1, 3, 3, 3), True),
    ([("Conv", ["x", "w"], {}), *[("Transpose", ["x"], FIRST)] * 8], (1, 3, 3, 3), False),
])  # fmt: skip
def test_where_the_channels_are(nodes: list[Any], shape: tuple[Any, ...], last: bool) -> None:
    made = [helper.make_node(kind, reads, [f"t{i}"], **more)
            for i, (kind, reads, more) in enumerate(nodes)]  # fmt: skip
    graph = helper.make_graph(
        made, "g", [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(made[-1].output[0], 1, None)],
        [numpy_helper.from_array(np.float32(1), "w")],
    )
    model = ir.from_proto(helper.make_model(graph))
    assert channels_last(model.graph.inputs[0]) is last


def test_a_model_with_its_channels_last_is_read_with_its_channels_first(tmp_path: Path) -> None:
    path = behind([("Transpose", [], FIRST)], tmp_path)
    (wanted,) = ort.InferenceSession(path).run(None, {"image": IMAGES})
    model = load(path)
    image, name = model.graph.inputs[0], model.graph.outputs[0].name or ""
    assert is_channels_last(image)
    assert shape_of(image) == ("N", 3, 16, 16)
    found = evaluate(model, {"image": IMAGES.transpose(0, 3, 1, 2)}, [name])[name]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("steps", [
    [*NORMALISE, ("Transpose", [], FIRST)], [("Transpose", [], FIRST), *NORMALISE[:1]],
], ids=["normalises", "takes pixels as they are"])  # fmt: skip
def test_pixels_with_their_channels_last(steps: list[Step], tmp_path: Path) -> None:
    """The same program as of the model behind that: the core sees exact pixels."""
    path = behind(steps, tmp_path, kind=TensorProto.UINT8)
    program = compiled(path, PIXELS)
    assert program.input.preprocess == "none"
    assert program.input.shape == (3, 16, 16)
    session = InferenceSession(program)
    assert session.channels_last
    assert session.get_inputs()[0].shape == ["N", 16, 16, 3]
    (found,) = session.run(None, {"image": PIXELS})
    for same in (PIXELS.transpose(0, 3, 1, 2), PIXELS.astype(np.float32)):
        np.testing.assert_array_equal(session.run(None, {"image": same})[0], found)
    (wanted,) = ort.InferenceSession(path).run(None, {"image": PIXELS})
    assert decibel(wanted, found) > 28
    (floats,) = InferenceSession(path, "float").run(None, {"image": PIXELS})
    np.testing.assert_array_equal(floats, wanted)
    with pytest.raises(InputError, match=r"has the shape \[1, 16, 3, 16\]; .* \[N, 16, 16, 3\]"):
        session.run(None, {"image": np.zeros((1, 16, 3, 16), np.float32)})


def test_open_sizes_with_the_channels_last(tmp_path: Path) -> None:
    path = behind([("Transpose", [], FIRST)], tmp_path, shape=("N", "H", "W", 3))
    model = load(path, (3, 16, 16))
    assert shape_of(model.graph.inputs[0]) == ("N", 3, 16, 16)
    with pytest.raises(InputError, match="--input-shape 4,16,16 does not fit"):
        load(path, (4, 16, 16))


@pytest.mark.parametrize("layout", ["first", "last"])
def test_bfloat16(layout: str, tmp_path: Path) -> None:
    cast: list[Step] = [("Cast", [], {"to": TensorProto.FLOAT})]
    images, path = IMAGES, None
    if layout == "last":
        path = behind([*cast, ("Transpose", [], FIRST)], tmp_path, kind=TensorProto.BFLOAT16)
    else:
        images = IMAGES.transpose(0, 3, 1, 2)
        path = behind(cast, tmp_path, kind=TensorProto.BFLOAT16, shape=("N", 3, 16, 16))
    images = images.astype(BFLOAT16)
    program = compiled(path, images)
    (found,) = InferenceSession(program).run(None, {"image": images})
    (floats,) = InferenceSession(path, "float").run(None, {"image": images})
    assert decibel(floats, found) > 28
    wide = images.astype(np.float32)
    np.testing.assert_array_equal(InferenceSession(program).run(None, {"image": wide})[0], found)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats(kind: type, tmp_path: Path) -> None:
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = behind([("Cast", [], {"to": TensorProto.FLOAT})], tmp_path, kind=number,
                  shape=("N", 3, 16, 16))  # fmt: skip
    images = IMAGES.transpose(0, 3, 1, 2).astype(kind)
    (found,) = InferenceSession(compiled(path, images)).run(None, {"image": images})
    (wanted,) = ort.InferenceSession(path).run(None, {"image": images})
    assert decibel(wanted, found) > 28


def test_commands_take_arrays_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    behind([*NORMALISE, ("Transpose", [], FIRST)], tmp_path, kind=TensorProto.UINT8)
    np.save("pixels.npy", PIXELS)
    Image.fromarray(PIXELS[0]).save("0.png")
    assert main(["compile", "model.onnx", "--arch", "nano", "--calib", "pixels.npy"]) == 0
    assert main(["info", "model.vfy"]) == 0
    assert "[N, 16, 16, 3]" in capsys.readouterr().out
    for given in ("pixels.npy", "0.png"):
        for backend, model in (("golden", "model.vfy"), ("float", "model.onnx")):
            assert main(["run", model, "--input", given, "--backend", backend,
                         "-o", f"{given}.{backend}.npz"]) == 0  # fmt: skip
    for backend in ("golden", "float"):
        array, picture = (
            next(iter(np.load(f"{given}.{backend}.npz").values())) for given in
            ("pixels.npy", "0.png")
        )
        np.testing.assert_allclose(array[:1], picture, atol=1e-5)
