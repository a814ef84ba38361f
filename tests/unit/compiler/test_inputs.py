"""Models that take tokens, vectors, numbers of words, or several inputs: as applications."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.no_image import (
    FLOAT,
    RNG,
    SIZE,
    START,
    TOKENS,
    Feed,
    behind,
    normal,
    tokens,
    words,
)
from tests.support.parts import NANO, places
from tests.support.ratio import decibel
from tests.support.tails import BLOCK, TAILS, exported, with_tail
from vitrify.arch.errors import InputError, ModelError
from vitrify.cli.main import main
from vitrify.compiler import compile_application, compile_model
from vitrify.compiler.cut import source_of
from vitrify.compiler.one_range import maps_of
from vitrify.frontend import load
from vitrify.program import Application, CorePart
from vitrify.runtime import InferenceSession, open_model


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Of a test, whichever others run before it."""
    RNG.bit_generator.state = START


def compiled(path: Path, feed: Any, **options: Any) -> Application:
    """The application, as it comes back from its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no photograph
        application = compile_application(path, NANO, feed, **options)
    application.save(path.with_suffix(".vfy"))
    again = open_model(path.with_suffix(".vfy"))
    assert isinstance(again, Application)
    return again


def check(application: Application, path: Path, feed: Feed, enough: float = 28) -> None:
    """Golden against ONNX Runtime, and the float backend equal to it."""
    (wanted,) = ort.InferenceSession(path).run(None, feed)
    (found,) = InferenceSession(application).run(None, feed)
    assert decibel(wanted, found) > enough
    (floats,) = InferenceSession(path, "float").run(None, feed)
    np.testing.assert_allclose(floats, wanted, rtol=1e-5, atol=1e-6)


def test_tokens(tmp_path: Path) -> None:
    path, feed = tokens(tmp_path)
    application = compiled(path, feed["x"])
    assert places(application) == "c"
    check(application, path, feed)
    session = InferenceSession(application)
    assert not session.is_of_images
    (arg,) = session.get_inputs()
    assert (arg.name, arg.type, arg.shape) == ("x", "tensor(float)", ["N", *SIZE])
    for wrong, message in (
        ({"x": np.zeros((2, 17, 15), np.float32)}, r"\[2, 17, 15\]; the model takes \[N, 17, 16\]"),
        ({"x": np.zeros((0, *SIZE), np.float32)}, "holds no sample"),
        ({"x": np.zeros((1, *SIZE), np.int64)}, "must be float32, not int64"),
        ({"x": np.full((1, *SIZE), np.nan)}, "not finite numbers"),
    ):
        with pytest.raises(InputError, match=message):
            session.run(None, wrong)
    with pytest.raises(InputError, match=r"takes no image; its inputs are 'x' \[N, 17, 16\]"):
        InferenceSession(application, preprocess="mean=0.5")
    assert session.get_modelmeta().custom_metadata_map["preprocess"] == ""


def test_words_and_a_condition(tmp_path: Path) -> None:
    """A table is looked up on the host, and a vector is added to every token."""
    path, feed = words(tmp_path)
    application = compiled(path, feed)
    assert places(application) == "hc"
    assert application.core_share > 0.99
    check(application, path, feed)
    session = InferenceSession(application)
    small = {"words": feed["words"].astype(np.int32), "condition": feed["condition"].astype("f8")}
    np.testing.assert_array_equal(session.run(None, small)[0], session.run(None, feed)[0])
    for wrong, message in (
        ({"words": feed["words"]}, r"input 'condition' is missing: \[N, 8\]"),
        ({**feed, "words": feed["words"][:3]}, "different numbers of samples: 'words' 3, 'condit"),
        ({**feed, "words": feed["condition"]}, "has the shape"),
        ({**feed, "words": feed["words"].astype(float)}, "must be int64, not float64"),
        ({**feed, "other": 1}, "no input 'other'; its inputs are 'words', 'condition'"),
    ):
        with pytest.raises(InputError, match=message):
            session.run(None, wrong)


def test_times_become_waves_on_the_host(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["time", "rates"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["wave"]),
        helper.make_node("MatMul", ["wave", "matrix"], ["vector"]),
        helper.make_node("Unsqueeze", ["vector", "one"], ["row"]),
        helper.make_node("Add", ["x", "row"], [TOKENS]),
    ]
    path = behind(
        nodes, {"x": (FLOAT, SIZE), "time": (FLOAT, [1])}, tmp_path, one=np.array([1]),
        rates=np.geomspace(1, 0.01, 8, dtype=np.float32)[None], matrix=normal(16),
    )
    feed = {"x": normal(*SIZE), "time": RNG.uniform(0, 1000, (8, 1)).astype(np.float32)}
    application = compiled(path, feed)
    assert places(application) == "hc"
    check(application, path, feed)


def test_tensors_of_different_ranges(tmp_path: Path) -> None:
    """Each has its own in the image that they share."""
    nodes = [
        helper.make_node("MatMul", ["v", "matrix"], ["vector"]),
        helper.make_node("Unsqueeze", ["vector", "one"], ["row"]),
        helper.make_node("Add", ["x", "row"], [TOKENS]),
    ]
    path = behind(nodes, {"x": (FLOAT, SIZE), "v": (FLOAT, [8])}, tmp_path,
                  matrix=normal(16) / 100, one=np.array([1]))  # fmt: skip
    feed = {"x": normal(*SIZE), "v": 100 * normal(8)}
    application = compiled(path, feed)
    assert places(application) == "c"
    check(application, path, feed, 25)
    plain = maps_of(source_of(load(path, any_inputs=True)), feed)
    for name, array in feed.items():
        gain, offset = plain[name]
        lines = (array * gain + offset).reshape(-1, array.shape[-1])
        np.testing.assert_allclose([lines.min(axis=0), lines.max(axis=0)], [[-1] * len(gain),
                                                                            [1] * len(gain)])


def test_two_images(tmp_path: Path) -> None:
    """Channels last and pixels, as of a single one."""
    model = exported()
    graph = model.graph
    name = graph.input[0].name
    graph.node[0].input[0] = "sum"
    made = [helper.make_node("Transpose", ["left"], ["turned"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["right"], ["floats"], to=FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["small"]),
            helper.make_node("Sub", ["turned", "small"], ["sum"])]  # fmt: skip
    for place, node in enumerate(made):
        node.name = node.output[0]
        graph.node.insert(place, node)
    graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "scale"))
    del graph.input[:]
    graph.input.extend([
        helper.make_tensor_value_info("left", FLOAT, ["N", 16, 16, 3]),
        helper.make_tensor_value_info("right", TensorProto.UINT8, ["N", 3, 16, 16]),
    ])
    assert name not in ("left", "right")
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    feed = {"left": normal(16, 16, 3), "right": RNG.integers(0, 256, (8, 3, 16, 16), np.uint8)}
    application = compiled(path, feed)
    assert application.core_share > 0.9
    assert [spec.given_shape for spec in application.inputs] == [(16, 16, 3), (3, 16, 16)]
    (wanted,) = ort.InferenceSession(path).run(None, feed)
    assert decibel(wanted, InferenceSession(application).run(None, feed)[0]) > 28


def test_a_condition_behind_most_of_the_model(tmp_path: Path) -> None:
    """The image, of few channels, is embedded on the host, and not all up to the condition."""
    model = exported()
    graph = model.graph
    where = next(i for i, node in enumerate(graph.node) if node.name == BLOCK)
    stream = graph.node[where].input[0]
    for node in graph.node[where:]:
        node.input[:] = ["joined" if name == stream else name for name in node.input]
    made = [helper.make_node("MatMul", ["condition", "matrix"], ["vector"]),
            helper.make_node("Unsqueeze", ["vector", "one"], ["row"]),
            helper.make_node("Add", [stream, "row"], ["joined"])]  # fmt: skip
    for place, node in enumerate(made):
        node.name = node.output[0]
        graph.node.insert(where + place, node)
    graph.initializer.extend([numpy_helper.from_array(normal(16), "matrix"),
                              numpy_helper.from_array(np.array([1]), "one")])  # fmt: skip
    graph.input.append(helper.make_tensor_value_info("condition", FLOAT, ["N", 8]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    feed = {"image": normal(3, 16, 16), "condition": normal(8)}
    application = compiled(path, feed)
    assert places(application) == "hc"
    assert application.core_share > 0.8
    check(application, path, feed)


def test_an_image_and_a_task(tmp_path: Path) -> None:
    """The host has the task's table, and the calibration an array for each."""
    nodes, outputs, constants = TAILS["two outputs"]
    nodes = [("Gather", ["table", "task"], ["row"], {}), ("Add", ["logits", "row"], ["sum"], {}),
             *((kind, ["sum" if name == "logits" else name for name in reads], *rest)
               for kind, reads, *rest in nodes)]  # fmt: skip
    model = with_tail(nodes, outputs, [*constants, ("table", normal(5))])
    model.graph.input.append(helper.make_tensor_value_info("task", TensorProto.INT64, ["N"]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    feed = {"image": normal(3, 16, 16), "task": np.arange(8)}
    application = compiled(path, feed)
    assert places(application) == "hch"
    session = InferenceSession(application)
    wanted = ort.InferenceSession(path).run(None, feed)
    found = session.run(None, feed)
    for exact, mine in zip(wanted, found, strict=True):
        assert decibel(exact, mine) > 28
    with pytest.raises(InputError, match=r"input 'task' has the shape \[\]; the model takes \[N\]"):
        session.run(None, {**feed, "task": 1})
    with pytest.raises(ModelError, match="end the model at the logits"):
        compile_application(path, NANO, feed["image"])


@pytest.mark.parametrize("turned", [False, True])
def test_as_many_tokens_as_channels(turned: bool, tmp_path: Path) -> None:
    """No size tells one from the other: what reads ``[N, 16, 16]`` does."""
    perm = {"perm": [0, 2, 1] if turned else [0, 1, 2]}
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Transpose", ["x"], "rows", perm),
        ("MatMul", ["v", "condition"], "vector", {}), ("Unsqueeze", ["vector", "one"], "row", {}),
        ("LayerNormalization", ["rows", "gamma"], "norm", {"axis": -1}),
        ("Mul", ["norm", "row"], "scaled", {}), ("MatMul", ["scaled", "wide"], "hidden", {}),
        ("Relu", ["hidden"], "relu", {}), ("MatMul", ["relu", "narrow"], "mlp", {}),
        ("Add", ["rows", "mlp"], "sum", {}),
        ("ReduceMean", ["sum", "one"], "mean", {"keepdims": 0}),
        ("MatMul", ["mean", "head"], "y", {}),
    ]
    sizes = {"condition": (8, 16), "wide": (16, 64), "narrow": (64, 16), "head": (16, 5)}
    constants = {name: RNG.normal(size=size).astype(np.float32) / 4 for name, size in sizes.items()}
    constants |= {"one": np.array([1]), "gamma": np.linspace(0.5, 1.5, 16, dtype=np.float32)}
    graph = helper.make_graph(
        [helper.make_node(kind, reads, [made], made, **more) for kind, reads, made, more in steps],
        "block",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 16, 16]),
         helper.make_tensor_value_info("v", FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=imports), path)
    feed = {"x": normal(16, 16) * np.linspace(0.5, 2, 16, dtype=np.float32), "v": normal(8)}
    application = compiled(path, feed)
    assert application.core_share > 0.9
    (part,) = [part for part in application.parts if isinstance(part, CorePart)]
    assert dict(zip(part.reads, part.axes, strict=True)) == {"x": 1 if turned else 2, "v": 1}
    check(application, path, feed)


def test_tokens_of_bfloat16(tmp_path: Path) -> None:
    """ONNX Runtime takes them; a model that computes in bfloat16 is not cut."""
    cast = helper.make_node("Cast", ["x"], [TOKENS], to=FLOAT)
    path = behind([cast], {"x": (TensorProto.BFLOAT16, SIZE)}, tmp_path)
    feed = normal(*SIZE).astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    (floats,) = InferenceSession(path, "float").run(None, {"x": feed})
    with pytest.raises(ModelError, match="it has tensors of bfloat16, which NumPy lacks"):
        compile_application(path, NANO, feed)
    path = behind([helper.make_node("Identity", ["x"], [TOKENS])], {"x": (FLOAT, SIZE)}, tmp_path)
    feed = feed.astype(np.float32)
    (wanted,) = ort.InferenceSession(path).run(None, {"x": feed})
    np.testing.assert_allclose(floats, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("inputs", "message"), [
    ({"x": (FLOAT, ["T", 16])}, r"'x' has the dynamic size T .*--input-shape NAME=SIZES"),
    ({"x": (TensorProto.STRING, SIZE)}, "of the type STRING, but numbers or booleans"),
    ({"x": (TensorProto.UNDEFINED, SIZE)}, "of the type UNDEFINED, but numbers or booleans"),
    ({"x": (FLOAT, [0, 16])}, "has the empty shape"),
    ({"x": (FLOAT, [1 << 20, 128])}, "more than 67108864 numbers"),
], ids=["dynamic", "texts", "undefined", "empty", "huge"])  # fmt: skip
def test_inputs_that_no_application_has(
    inputs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = behind([helper.make_node("Identity", ["x"], [TOKENS])], inputs, tmp_path)
    with pytest.raises(ModelError, match=message):
        compile_application(path, NANO, normal(*SIZE))


@pytest.mark.parametrize(("shape", "message"), [
    ([], "'t' has no batch: its shape is"), ([2], "first axes of the inputs differ"),
])  # fmt: skip
def test_every_input_counts_the_samples(shape: list[int], message: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "t"], [TOKENS])]
    path = behind(nodes, {"x": (FLOAT, SIZE)}, tmp_path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("t", FLOAT, shape))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=message):
        compile_application(path, NANO, {"x": normal(*SIZE), "t": normal()})


def test_calibration_is_of_all_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "y"], [TOKENS])]
    path = behind(nodes, {"x": (FLOAT, SIZE), "y": (FLOAT, SIZE)}, tmp_path)
    for given, message in (
        (None, r"takes 'x' \[17, 16\], 'y' \[17, 16\] and not one image: give --calib"),
        (normal(*SIZE), "has to be a dictionary, or a .npz, with an array"),
        ({"x": normal(*SIZE)}, "input 'y' is missing"),
    ):
        with pytest.raises(InputError, match=message):
            compile_application(path, NANO, given)
    with pytest.raises(InputError, match="says how pictures become images, and the model takes no"):
        compile_application(path, NANO, normal(*SIZE), preprocess="mean=0.5")
    with pytest.raises(ModelError, match="The model has 2 inputs"):
        compile_model(path, NANO, normal(*SIZE))


def test_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("Add", ["x", "y"], [TOKENS])]
    behind(nodes, {"x": (FLOAT, ["T", 16]), "y": (FLOAT, SIZE)}, tmp_path)
    feed = {"x": normal(*SIZE), "y": 9 * normal(*SIZE)}
    np.savez("feed.npz", **feed)
    for name, array in feed.items():
        np.save(f"{name}.npy", array)
    sizes = ["--input-shape", "x=17,16"]
    assert main(["info", "model.onnx", *sizes]) == 0
    assert "in parts, with 100.0 % of the multiplications" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["compile", "model.onnx", "--arch", "nano", "--calib", "feed.npz", *sizes]) == 0
    assert main(["info", "model.vfy"]) == 0
    assert "x float32 [N, 17, 16], y float32 [N, 17, 16]" in " ".join(
        capsys.readouterr().out.split()
    )
    for number, given in enumerate((["feed.npz"], ["x=x.npy", "y=y.npy"], ["y=y.npy", "feed.npz"])):
        assert main(["run", "model.vfy", "--input", *given, "-o", f"{number}.npz"]) == 0
    assert main(["run", "model.onnx", "--backend", "float", "--input", "feed.npz"]) == 0
    first, *others = (next(iter(np.load(f"{n}.npz").values())) for n in range(3))
    for other in others:
        np.testing.assert_array_equal(first, other)
    for more, message in (
        (["x.npy"], "'x.npy' is no .npz, which the arrays of 'x', 'y' need"),
        (["x=x.npy"], "give one .npz with an array for each, or NAME=FILE"),
        (["z=x.npy", "feed.npz"], "'z=x.npy' is of no input that is left"),
        (["x=none.npy", "y=y.npy"], "input file 'none.npy' does not exist"),
    ):
        assert main(["run", "model.vfy", "--input", *more]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    for shapes, message in (
        (["17,16"], "must say which of 'x', 'y' it is of"), (["z=17,16"], "has no input 'z'"),
        (["x=17,16,1"], "is none such as those of"), (["y=9,16"], "does not fit input 'y'"),
    ):
        assert main(["info", "model.onnx", "--input-shape", *shapes]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
