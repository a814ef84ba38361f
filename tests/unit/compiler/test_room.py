"""Parts of the host where something does not fit, or has windows along the batch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from tests.support.parts import IMAGES, NANO, check, compiled, places, save
from vitrify.arch.errors import CapacityError
from vitrify.compiler import compile as stage
from vitrify.compiler import compile_graph, partition
from vitrify.compiler.cut import source_of
from vitrify.compiler.quantise import quantise
from vitrify.frontend import canonicalise, load


def convolutions(path: Path) -> None:
    """A map of 8 channels, one of 32 that 768 words of 8 do not hold, and 25 rows of it."""
    rng = np.random.default_rng(4)
    nodes, constants = [], []

    def weighted(op_type: str, x: str, y: str, *shape: int, **attributes: object) -> None:
        weight = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"{y}.w"))
        nodes.append(helper.make_node(op_type, [x, f"{y}.w"], [y], y, **attributes))

    weighted("Conv", "image", "a", 8, 3, 3, 3, pads=[1] * 4)
    nodes.append(helper.make_node("Relu", ["a"], ["r"], "r"))
    weighted("Conv", "r", "b", 32, 8, 3, 3, pads=[1] * 4)
    nodes.append(helper.make_node("Relu", ["b"], ["s"], "s"))
    weighted("Conv", "s", "c", 16, 32, 4, 4, strides=[3, 3])
    nodes.append(helper.make_node("Relu", ["c"], ["t"], "t"))
    weighted("Conv", "t", "y", 16, 16, 1, 1)
    save(helper.make_graph(
        nodes, "maps", [helper.make_tensor_value_info("image", 1, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", 1, ["N", 16, 5, 5])], constants,
    ), path)  # fmt: skip


def test_what_does_not_fit_runs_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "HOST_MACS", 1.0)
    arch = replace(NANO, name="small", banks=6, bank_words=128)
    convolutions(tmp_path / "model.onnx")
    graph = quantise(canonicalise(load(tmp_path / "model.onnx")), IMAGES, arch=arch)
    whole = compile_graph(graph, arch)
    assert any(".band" in layer.tensor.name for layer in whole.layers)
    monkeypatch.setattr(stage, "BANDED", ())
    with pytest.raises(CapacityError, match=r"'b\.act' needs 8192 bytes") as caught:
        compile_graph(graph, arch)
    assert caught.value.node == "b"
    application, path = compiled(onnx.load(tmp_path / "model.onnx"), tmp_path, arch)
    assert places(application) == "chc"
    (why,) = application.parts[1].why
    assert re.match(r"Node 'b' does not fit: tensor '.*' needs \d+ bytes of token memory", why)
    assert why.endswith("of the 6144 bytes of arch 'small' are free")
    check(application, path)


@pytest.mark.parametrize(("too_much", "blamed", "cut", "says"), [
    ({"b", "c"}, "c", "s",
     "begins another program, because it does not fit behind what is before it"),
    ({"a", "b"}, "a", "r", "ends its program, because it does not fit with what is behind it"),
])
def test_programs_are_cut_where_nothing_is_multiplied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_much: set[str], blamed: str, cut: str,
    says: str,
) -> None:
    """Before the node that does not fit, or behind it if there is nothing before."""
    monkeypatch.setattr(partition, "HOST_MACS", 1.0)
    convolutions(tmp_path / "model.onnx")

    def room(model: ir.Model) -> None:
        if too_much <= {node.name for node in model.graph}:
            error = CapacityError("it is too large")
            error.node = blamed
            raise error

    source = source_of(load(tmp_path / "model.onnx"))
    host = [piece for piece in partition.partition(source, room) if not piece.on_core]
    assert [node.name for piece in host for node in piece.nodes] == [cut]
    assert host[0].why == (f"Node {blamed!r} {says}: it is too large",)


def test_windows_along_the_batch_leave_with_an_axis_of_images(tmp_path: Path) -> None:
    """Four windows of 64 pixels; between them and their classes is a sum that no core makes."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Reshape", ["image", "apart"], ["split"], "split"),
        helper.make_node("Transpose", ["split"], ["moved"], "moved", perm=[0, 2, 4, 1, 3, 5]),
        helper.make_node("Reshape", ["moved", "windows"], ["windowed"], "windowed"),
        helper.make_node("Conv", ["windowed", "w"], ["maps"], "maps", strides=[2, 2]),
        helper.make_node("CumSum", ["maps", "axis"], ["sums"], "sums"),
        helper.make_node("Conv", ["sums", "v"], ["small"], "small", strides=[4, 4]),
        helper.make_node("Reshape", ["small", "flat"], ["y"], "y"),
    ]
    forms = {"apart": [1, 3, 2, 8, 2, 8], "windows": [4, 3, 8, 8], "flat": [1, 20], "axis": 2}
    weights = {"w": rng.normal(size=(8, 3, 2, 2)), "v": rng.normal(size=(5, 8, 4, 4))}
    graph = helper.make_graph(
        nodes, "windows", [helper.make_tensor_value_info("image", 1, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", 1, [1, 20])],
        [numpy_helper.from_array(np.array(form), name) for name, form in forms.items()]
        + [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )  # fmt: skip
    save(graph, tmp_path / "maps.onnx")
    application, path = compiled(onnx.load(tmp_path / "maps.onnx"), tmp_path)
    assert places(application) == "ch"
    assert application.parts[0].program.outputs[0].shape == (4, 8, 4, 4)
    check(application, path)
