"""The backend of ONNX: what it compiles, what it takes for calibration, what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.base import Backend

import vitrify.backend
from tests.support.ratio import decibel
from tests.support.tails import exported
from vitrify.arch.errors import InputError, ModelError, UnsupportedOpError
from vitrify.backend import VitrifyBackend, as_sample, with_constants

RNG = np.random.default_rng(16)
IMAGES = RNG.normal(size=(8, 3, 16, 16)).astype(np.float32)
FLOAT = TensorProto.FLOAT


def model_of(
    node: onnx.NodeProto, inputs: dict[str, list], out: list, opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node], "node", [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(node.output[0], FLOAT, out)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def test_it_is_a_backend() -> None:
    assert issubclass(VitrifyBackend, Backend)
    assert vitrify.backend.supports_device("CPU")
    assert not vitrify.backend.supports_device("CUDA")
    with pytest.raises(InputError, match="device 'CUDA:1' is none of this backend's"):
        vitrify.backend.prepare(exported(), "CUDA:1")


def test_a_prepared_model_runs_often() -> None:
    model = exported()
    prepared = vitrify.backend.prepare(model, arch="nano", calibration={"image": IMAGES})
    assert prepared.on_core_alone
    assert not prepared.is_sample
    wanted = onnx.reference.ReferenceEvaluator(model).run(None, {"image": IMAGES[:2]})
    first, = prepared.run([IMAGES[:2]])
    assert decibel(wanted[0], first) > 25
    for inputs in (IMAGES[:2], {"image": IMAGES[:2]}):
        np.testing.assert_array_equal(prepared.run(inputs)[0], first)
    with pytest.raises(InputError, match=r"takes 1 inputs \(image\), and 2"):
        prepared.run([IMAGES, IMAGES])


def test_first_inputs_are_the_calibration() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)
    model = model_of(node, {"x": ["N", 3, 4, 4], "w": [4, 3, 1, 1]}, ["N", 4, 4, 4])
    prepared = vitrify.backend.prepare(model, arch="nano", constants={"w": weight})
    large = 100 * RNG.normal(size=(4, 3, 4, 4)).astype(np.float32)
    wanted = np.einsum("nchw,dc->ndhw", large, weight[..., 0, 0])
    assert decibel(wanted, prepared.run([large])[0]) > 25
    program = prepared.compiled
    assert decibel(wanted[:1], prepared.run([large[:1]])[0]) > 25
    assert prepared.compiled is program


def test_inputs_without_a_batch_are_one_sample() -> None:
    """And weights may come with every run."""
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    feed = {"a": RNG.normal(size=(3, 4)).astype(np.float32),
            "b": RNG.normal(size=(4, 5)).astype(np.float32)}  # fmt: skip
    model = model_of(node, {"a": [3, 4], "b": [4, 5]}, [3, 5])
    prepared = vitrify.backend.prepare(model, arch="nano", calibration=feed, copies=32)
    assert prepared.is_sample
    found, = prepared.run([*feed.values()])
    assert found.shape == (3, 5)
    assert decibel(feed["a"] @ feed["b"], found) > 25
    other = 0.5 * feed["b"]
    assert decibel(feed["a"] @ other, prepared.run([feed["a"], other])[0]) > 20
    assert as_sample(model_of(node, {"a": ["N", 4], "b": [4, 5]}, ["N", 5])) is None


def test_run_node_and_run_model() -> None:
    x = RNG.normal(size=(2, 3, 4, 4)).astype(np.float32)
    w = RNG.normal(size=(5, 3, 2, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2])
    cut = x.reshape(2, 3, 2, 2, 2, 2)
    wanted = np.einsum("nchiwj,dcij->ndhw", cut, w)
    for info in (None, [(np.dtype(np.float32), wanted.shape)]):
        found, = vitrify.backend.run_node(node, [x, w], outputs_info=info, arch="nano",
                                          opset_version=17)  # fmt: skip
        assert decibel(wanted, found) > 25
    model = model_of(node, {"x": list(x.shape), "w": list(w.shape)}, list(wanted.shape))
    found, = vitrify.backend.run_model(model, [x], arch="nano", constants={"w": w})
    assert decibel(wanted, found) > 25
    with pytest.raises(InputError, match=r"\(Conv\) has 2 inputs, and 1 were given"):
        vitrify.backend.run_node(node, [x])


def test_calibration_counts_as_often_for_run_model_as_for_prepare() -> None:
    model, options = exported(), {"arch": "nano", "calibration": {"image": IMAGES[:2]}}
    wanted, = vitrify.backend.prepare(model, **options).run(IMAGES[:1])
    found, = vitrify.backend.run_model(model, IMAGES[:1], **options)
    np.testing.assert_array_equal(found, wanted)


def test_old_models_are_converted() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = with_constants(
        model_of(node, {"x": [1, 3, 4, 4], "w": [4, 3, 1, 1]}, [1, 4, 4, 4], opset=6),
        {"w": RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)},
    )
    # such files list their weights among the inputs
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 3, 1, 1]))
    model.ir_version = 3
    x = RNG.normal(size=(1, 3, 4, 4)).astype(np.float32)
    weight = numpy_helper.to_array(model.graph.initializer[0])
    found, = vitrify.backend.run_model(model, [x], arch="nano")
    assert decibel(np.einsum("nchw,dc->ndhw", x, weight[..., 0, 0]), found) > 25


def test_what_is_refused() -> None:
    determinant = model_of(helper.make_node("Det", ["x"], ["y"]), {"x": [1, 3, 4, 4]}, [1, 3])
    assert not vitrify.backend.is_compatible(determinant, arch="nano")
    with pytest.raises(UnsupportedOpError, match=r"\(Det\) is not supported"):
        vitrify.backend.prepare(determinant, arch="nano")
    open_sizes = model_of(
        helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": ["N", 4], "b": [4, "M"]}, ["N", "M"]
    )
    with pytest.raises(ModelError, match="first axes of the model's inputs differ, and sizes"):
        vitrify.backend.prepare(open_sizes, arch="nano")
