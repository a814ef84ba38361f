"""Applications in parts: their files, and ONNX models that come from anyone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.program.cases import copy_program
from vitrify.arch.errors import InputError, ProgramError
from vitrify.arch.presets import preset
from vitrify.program import Application, CorePart, HostPart, ImageSpec, Program, as_image, container
from vitrify.program.application import image_shape, in_batches
from vitrify.program.onnx_graph import read


def host_model(reads: str = "rows", result: str = "best") -> onnx.ModelProto:
    """The largest of the copied rows."""
    graph = helper.make_graph(
        [helper.make_node("ArgMax", [reads], [result], "largest", axis=-1, keepdims=0)], "host",
        [helper.make_tensor_value_info(reads, TensorProto.FLOAT, ["N", 9, 12])],
        [helper.make_tensor_value_info(result, TensorProto.INT64, ["N", 9])],
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def application(**changes: Any) -> Application:
    program = copy_program()
    fields: dict[str, Any] = {
        "model": "copy, largest",
        "inputs": (
            ImageSpec(name="image", shape=program.input.shape, preprocess="mean=0.5,std=0.5"),
        ),
        "outputs": ("best",),
        "parts": (
            CorePart(program=program, reads=("image",)),
            HostPart(model=host_model().SerializeToString(), why=("ArgMax",), macs=7),
        ),
        "metadata": {"note": 1},
    }
    return Application(**{**fields, **changes})


def test_round_trip(tmp_path: Path) -> None:
    before = application()
    before.save(tmp_path / "a.vfy")
    again = container.load(tmp_path / "a.vfy")
    assert isinstance(again, Application)
    assert again.input == before.input
    assert again.metadata == {"note": 1}
    assert again.parts[1] == before.parts[1]
    assert np.array_equal(again.programs[0].image, before.programs[0].image)
    assert [(v.name, v.dtype, v.shape) for v in again.results()] == [("best", "int64", (None, 9))]
    assert again.core_share == pytest.approx(before.programs[0].macs / before.macs)
    with pytest.raises(ProgramError, match=r"application in parts.*InferenceSession"):
        Program.load(tmp_path / "a.vfy")


def altered(change: Callable[[dict[str, Any]], object], data: bytes | None = None) -> bytes:
    """The file with another header, its checksum right."""
    data = container.content(application()) if data is None else data
    magic, version, length, _ = struct.unpack_from("<8sIII", data)
    fields = json.loads(data[20 : 20 + length])
    change(fields)
    text = json.dumps(fields).encode()
    head = struct.pack("<8sIII", magic, version, len(text), zlib.crc32(text))
    return head + text + data[20 + length :]


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: f["parts"].pop(), "sections must be a list of 1"),
    (lambda f: f["parts"][0].update(place="moon"), r"parts\[0\].place must be 'core' or 'host'"),
    (lambda f: f["parts"][1].update(reads=["other"]), "'part 1' does not read what the header"),
    (lambda f: f["parts"][0].update(axes=[2]), r"takes an image of \(3, 4, 8\)"),
    (lambda f: f["parts"][0].update(axes=[1, 1]), r"takes an image of \(3, 4, 8\)"),
    (lambda f: f["parts"][0].update(gains=[[1, 1]]), "other numbers of channels than it reads"),
    (lambda f: f["inputs"].append(f["inputs"][0]), "two inputs of .* are called 'image'"),
    (lambda f: f["inputs"].append({"name": "t", "shape": [3], "dtype": "text"}),
     "input 't' cannot be of the type 'text'"),
    (lambda f: f["inputs"].append({"name": "t", "shape": [1 << 14] * 2, "dtype": "int64"}),
     "has more than 67,108,864 values"),
    (lambda f: f["inputs"][0].update(channels_last=1), "must be true or false, not 1"),
    (lambda f: f["parts"][0].update(reads=["else"]), "reads 'else', which no part before it"),
    (lambda f: f.update(outputs=["image"]), "makes its output 'image'"),
    (lambda f: f.update(instruction_count=3), "unknown field 'instruction_count'"),
    (lambda f: f["inputs"][0].update(shape=[3, 4, 4]), r"takes an image of \(3, 4, 8\)"),
    (lambda f: f["sections"][1].update(name="image"), "unknown section 'image'"),
    (lambda f: f["parts"][1].update(place="core"), "is not a Vitrify program"),
])  # fmt: skip
def test_wrong_headers(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        container.parse(altered(change), "a.vfy")


def test_an_application_holds_no_other() -> None:
    inner = container.content(application())
    outer = container.content(application())
    own = container.content(copy_program())

    def change(fields: dict[str, Any]) -> None:
        digest = hashlib.sha256(inner).hexdigest()
        fields["sections"][0].update(size=len(inner), sha256=digest)

    with pytest.raises(ProgramError, match="an application within an application"):
        container.parse(altered(change, outer.replace(own, inner)), "a.vfy")


@pytest.mark.parametrize(("changes", "message"), [
    ({"parts": ()}, "has nothing for the core"),
    ({"outputs": ("none",)}, "makes its output 'none'"),
    ({"inputs": (ImageSpec(name="i", shape=(3, 4, 8)),)}, "reads 'image', which no part before"),
    ({"inputs": (ImageSpec(name="image", shape=(3, 4, 8), preprocess="odd"),)}, "odd"),
])  # fmt: skip
def test_contradictions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ProgramError, InputError), match=message):
        application(**changes)


def test_a_batch_that_cannot_be() -> None:
    model = host_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    parts = (application().parts[0], HostPart(model=model.SerializeToString()))
    with pytest.raises(ProgramError, match="takes 1099511627776 images at once"):
        application(parts=parts)


def test_what_a_part_reads_has_a_batch() -> None:
    model = host_model()
    model.graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, []))
    parts = (application().parts[0], HostPart(model=model.SerializeToString()))
    with pytest.raises(ProgramError, match="reads something without a batch"):
        application(parts=parts)


def test_programs_are_for_one_core() -> None:
    first = copy_program()
    other = dataclasses.replace(first, arch=preset("reference"))
    parts = [CorePart(program=p, reads=("image",)) for p in (first, other)]
    with pytest.raises(ProgramError, match="for different cores"):
        application(parts=tuple(parts))


# ONNX from anyone --------------------------------------------------------------------------
def external(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    model.graph.initializer.append(tensor)


def external_without_location(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.initializer.append(tensor)


def branch(model: onnx.ModelProto) -> None:
    node = helper.make_node("If", ["best"], ["y"], then_branch=model.graph, else_branch=model.graph)
    model.graph.node.append(node)


def function(model: onnx.ModelProto) -> None:
    made = helper.make_function("ours", "F", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    model.functions.append(made)


def too_small(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="w", dims=[1 << 40], data_type=1,
                                               raw_data=b"abcd"))


def text_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "w"))


def half_of_too_many_bits(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="w", dims=[1], data_type=TensorProto.FLOAT16,
                                               int32_data=[1 << 16]))


@pytest.mark.parametrize(("change", "message"), [
    (half_of_too_many_bits, "is damaged"),
    (external, "weight 'w' of its ONNX model is in another file"),
    (external_without_location, "weight 'w' of its ONNX model is in another file"),
    (branch, "attribute 'else_branch' of its ONNX model is a graph"),
    (function, "has functions"),
    (too_small, r"weight 'w' .* holds 1 numbers, and its shape is \[1099511627776\]"),
    (text_weight, "of no type that NumPy has"),
    (lambda m: setattr(m.graph.node[0], "domain", "evil"), "is of the domain 'evil'"),
    (lambda m: m.graph.node[0].input.append("none"), "reads 'none', which nothing before"),
    (lambda m: m.graph.node.append(m.graph.node[0]), "makes the tensor 'best' twice"),
    (lambda m: setattr(m.graph.output[0], "name", "gone"), "makes no output 'gone'"),
    (lambda m: m.graph.ClearField("node"), "makes no output"),
    (lambda m: m.graph.input[0].ClearField("type"), "of no known type"),
    (lambda m: m.graph.sparse_initializer.add(), "sparse weights"),
])  # fmt: skip
def test_what_no_part_of_the_host_may_be(
    change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    model = host_model()
    change(model)
    with pytest.raises(ProgramError, match=message):
        read(model.SerializeToString())


def test_a_graph_that_comes_twice_is_damage() -> None:
    data = host_model().SerializeToString()
    extra = onnx.ModelProto(graph=onnx.GraphProto(name="more")).SerializeToString()
    for wrong in (data + extra, data[:-3], b"\xff" * 40, b""):
        with pytest.raises(ProgramError, match="damaged"):
            read(wrong)


def test_any_damage_is_a_sentence() -> None:
    rng, data = np.random.default_rng(6), host_model().SerializeToString()
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(len(data), size=int(rng.integers(1, 4))):
            broken[at] = int(rng.integers(256))
        with contextlib.suppress(ProgramError):
            read(bytes(broken))


@pytest.mark.parametrize("kind", [
    np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, np.uint32, np.bool_,
    np.uint64,
])  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_weights_of_every_type(kind: type, raw: bool) -> None:
    array = np.array([[0, 1, 3], [5, 7, 100]]).astype(kind)
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    values = array.tobytes() if raw else array.ravel()
    model = host_model()
    model.graph.initializer.append(helper.make_tensor("w", number, [2, 3], values, raw=raw))
    found = read(model.SerializeToString()).constants["w"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_attributes_of_every_kind() -> None:
    given = {"f": 0.5, "i": -3, "s": "text", "floats": [0.5, 1.5], "ints": [-1, 2],
             "strings": ["a", "b"]}
    model = host_model()
    model.graph.node.append(helper.make_node("Odd", ["best"], ["odd"], **given))
    assert read(model.SerializeToString()).nodes[1].attributes == given


# Images of tensors -------------------------------------------------------------------------
@pytest.mark.parametrize(("shapes", "axes", "wanted"), [
    ([(3, 4, 5)], [1], (3, 4, 5)), ([(3, 4, 5)], [3], (5, 12, 1)), ([(7,)], [1], (7, 1, 1)),
    ([(6, 7)], [2], (7, 6, 1)), ([(6, 7), (2, 7)], [2, 2], (7, 8, 1)),
    ([(4, 2, 3), (6, 4)], [1, 2], (4, 12, 1)), ([(2, 3, 4, 5)], [4], (5, 24, 1)),
])  # fmt: skip
def test_the_image_of_tensors(
    shapes: list[tuple[int, ...]], axes: list[int], wanted: tuple[int, ...]
) -> None:
    arrays = [np.random.default_rng(1).normal(size=(2, *shape)) for shape in shapes]
    image = as_image(arrays, axes)
    assert image.shape[1:] == image_shape([(None, *shape) for shape in shapes], axes) == wanted
    assert np.array_equal(np.sort(image, axis=None), np.sort(np.concatenate(
        [array.ravel() for array in arrays])))  # fmt: skip


def test_tensors_of_other_widths_make_an_image_of_the_widest() -> None:
    assert image_shape([(None, 6, 7), (None, 6, 5)], [2, 2]) == (7, 12, 1)
    assert image_shape([(None, 6, None)], [1]) is None
    assert image_shape([(None, 6, 7)], [3]) is None


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 5])
def test_batches_are_filled_up(batch: int | None) -> None:
    images = np.arange(5.0)[:, None]
    sizes = []

    def run(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(feed["x"]))
        return [2 * feed["x"], np.zeros((7, 2))]

    twice, other = in_batches(run, {"x": images}, batch)
    assert np.array_equal(twice, 2 * images)
    assert len(other) == 7 * len(sizes)
    assert set(sizes) == {batch or 5}
