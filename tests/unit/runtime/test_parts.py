"""Sessions of applications: on a board that has NumPy alone, and with providers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.support.numpy_alone import with_numpy_alone
from tests.support.tails import MODEL
from tests.unit.program.test_application import application, host_model
from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.presets import preset
from vitrify.cli.run import summary
from vitrify.program import CorePart, HostPart
from vitrify.runtime import InferenceSession
from vitrify.runtime.activity import Activity
from vitrify.runtime.host import HostRunner
from vitrify.runtime.parts import _sum
from vitrify.runtime.statistics import Statistics

IMAGES = np.random.default_rng(4).random((3, 3, 4, 8)).astype(np.float32)


def on_a_board(folder: Path, parts: tuple[CorePart | HostPart, ...] | None = None) -> str:
    subject = application() if parts is None else application(parts=parts)
    return with_numpy_alone(subject, {"image": IMAGES}, folder)


def test_a_board_with_numpy_alone_runs_an_application(tmp_path: Path) -> None:
    (found,) = InferenceSession(application()).run(None, {"image": IMAGES})
    assert found.shape == (3, 9)
    assert on_a_board(tmp_path) == str(found.ravel().tolist())


def test_a_board_names_what_numpy_lacks(tmp_path: Path) -> None:
    model = host_model()
    model.graph.node.insert(0, helper.make_node("Erf", ["rows"], ["e"], "erf"))
    model.graph.node[1].input[0] = "e"
    parts = (application().parts[0], HostPart(model=model.SerializeToString()))
    assert "the operators Erf, which need ONNX Runtime" in on_a_board(tmp_path, parts)


def test_what_contradicts_itself_is_a_sentence() -> None:
    model = host_model()
    model.graph.node[0].attribute[0].i = 7
    part = HostPart(model=model.SerializeToString())
    with pytest.raises(BackendError, match=r"node 'largest' \(ArgMax\).*failed"):
        HostRunner(part, "numpy").run({"rows": np.zeros((1, 9, 12), np.float32)})


def test_results_that_numpy_does_not_make() -> None:
    model = host_model()
    norm = helper.make_node("LayerNormalization", ["rows", "one"], ["", "mean"], "norm")
    model.graph.node.insert(0, norm)
    model.graph.node[1].input[0] = "mean"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(12, np.float32), "one"))
    part = HostPart(model=model.SerializeToString())
    with pytest.raises(BackendError, match=r"node 'norm' \(LayerNormalization\) .* more results"):
        HostRunner(part, "numpy").run({"rows": np.zeros((1, 9, 12), np.float32)})


def test_providers_name_the_backend() -> None:
    session = InferenceSession(application(), providers=["golden", "CPUExecutionProvider"])
    assert session.get_providers() == ["golden", "CPUExecutionProvider"]
    assert session.run(None, {"image": IMAGES})[0].shape == (3, 9)
    model = InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    assert model.get_providers() == ["float", "CPUExecutionProvider"]
    assert model.get_modelmeta().custom_metadata_map == {}
    with pytest.raises(InputError, match="one backend runs a session, not golden and rtl"):
        InferenceSession(application(), providers=["golden", "rtl"])
    with pytest.raises(InputError, match="providers must be a list of names"):
        InferenceSession(application(), providers="golden")


def test_modelmeta() -> None:
    meta = InferenceSession(application()).get_modelmeta()
    assert (meta.graph_name, meta.producer_name) == ("copy, largest", "vitrify")
    assert meta.custom_metadata_map["preprocess"] == "mean=0.5,std=0.5"
    assert meta.custom_metadata_map["note"] == "1"


def test_a_tensor_without_axes_is_a_sentence() -> None:
    runner = HostRunner(HostPart(model=host_model().SerializeToString()))
    with pytest.raises(BackendError, match="failed"):
        runner.run({"rows": np.float32(1)})


def test_costs_of_programs_add_up() -> None:
    program = application().programs[0]
    activity = Activity("rtl", 100, [], np.zeros(2, np.int64))
    one = Statistics(
        name="one", arch=program.arch, backend="rtl", images=2, macs=5, cycles=100,
        dram_read_bytes=7, dram_write_bytes=3, counters={"STALL_BANK": 4}, activity=activity,
    )
    both = _sum([one, one], "both")
    assert (both.name, both.images, both.macs, both.cycles) == ("both", 2, 10, 200)
    assert (both.dram_read_bytes, both.dram_write_bytes) == (14, 6)
    assert both.counters == {"STALL_BANK": 8}
    assert both.activity is None
    assert _sum([one], "one").activity is activity
    assert one.counters == {"STALL_BANK": 4}


def test_one_image_is_no_images():
    for images, words in ((1, "1 image, "), (2, "2 images, ")):
        cost = Statistics(name="model", arch=preset("nano"), backend="golden", images=images)
        assert summary(cost).startswith(words)
