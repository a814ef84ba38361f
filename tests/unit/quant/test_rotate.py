"""Residual streams in another basis: the same results, and no channel that stands out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from bench.cases import CASES
from bench.quantised_models import VARIANTS, quantise_file
from tests.unit.quant import graphs, mixtures
from vitrify.arch.presets import preset
from vitrify.compiler.driver import quantise_loaded, quantise_model, silent
from vitrify.ir import array_of, evaluate
from vitrify.quant.decompose import inputs
from vitrify.quant.rotate import rotated
from vitrify.quant.wanted import NARROW, WIDE, Weights


def parameters(model: ir.Model):
    return {name: array_of(value) for name, value in model.graph.initializers.items()}


def changed(old: ir.Model, new: ir.Model):
    """Names of the parameters that differ."""
    before, after = parameters(old), parameters(new)
    return {name for name in before if not np.array_equal(before[name], after[name])}


def outlying(seed: int = 0):
    """A network one channel of whose stream is large, and read with a small gain."""
    net = graphs.Net(seed)
    model = net.model(graphs.vit(net))
    parameter = model.graph.initializers["tokens.position"]
    value = array_of(parameter).copy()
    value[:, 3] += 40
    parameter.const_value = ir.tensor(value, name=parameter.name)
    return model, net.images(16)


def same(model: ir.Model, feeds: dict[str, np.ndarray]):
    """Compare all results with those of the rotated model, which it returns."""
    new = rotated(model)
    names = [value.name or "" for value in model.graph.outputs]
    before, after = evaluate(model, feeds, names), evaluate(new, feeds, names)
    for name in names:
        np.testing.assert_allclose(after[name], before[name], atol=5e-4)
    return new


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("vit", True), ("select_first", True), ("pool_after_norm", True),
        ("pool_before_norm", True), ("parallel", True), ("two_attentions", True),
        # a normalisation or an activation makes or reads the stream, or the user does
        ("pre_norm", False), ("no_positions", True), ("stream", False), ("features", False),
    ],
)
def test_results_are_the_same(name: str, some: bool):
    net = graphs.Net(2)
    model = net.model(graphs.MAPPINGS[name](net))
    new = same(model, {"image": net.images(4)})
    assert bool(changed(model, new)) == some


@pytest.mark.parametrize("name", sorted(mixtures.MAPPINGS))
def test_results_of_experts_and_tasks_are_the_same(name: str):
    net = mixtures.MixedNet(2)
    model = net.model(mixtures.MAPPINGS[name](net))
    feeds = {"image": net.images(4)}
    if name == "tasks":
        feeds["task"] = np.array([0, 2, 1, 0])
    same(model, feeds)


def test_every_parameter_of_a_stream_is_rotated():
    net = graphs.Net(2)
    model = net.model(graphs.vit(net))
    new = parameters(rotated(model))
    assert changed(model, rotated(model)) == set(new)
    assert not any(np.ptp(new[name]) for name in new if name.endswith((".gamma", ".beta")))


def test_a_large_channel_is_spread_over_all():
    model, images = outlying()
    new = rotated(model)
    for each, most in ((model, 1.0), (new, 0.5)):
        x = evaluate(each, {"image": images}, ["tokens"])["tokens"]
        size = np.abs(x - x.mean(axis=-1, keepdims=True)).mean(axis=(0, 1))
        share = size.max() / size.sum()
        assert (share > 0.4) == (most == 1.0), share


@pytest.mark.parametrize("bits", [NARROW, WIDE])
def test_streams_are_rotated_for_few_bits_only(bits: int):
    model, images = outlying()
    canonical, _ = quantise_loaded(
        model, preset("nano"), images, progress=silent, weights=Weights(bits)
    )
    gains = [array_of(inputs(node)[1]) for node in canonical.graph if node.op_type == "LayerNorm"]
    assert [np.ptp(gain) == 0 for gain in gains] == [bits == NARROW] * 3


def test_a_quantised_model_keeps_its_weights(tmp_path: Path):
    digits, path = CASES[0], tmp_path / "digits.onnx"
    quantise_file(digits.model, path, VARIANTS[1], digits.calibration()[:16])
    canonical, _ = quantise_model(
        path, preset("nano"), None, preprocess=digits.preprocess, weights=Weights(NARROW)
    )
    gains = [array_of(inputs(node)[1]) for node in canonical.graph if node.op_type == "LayerNorm"]
    assert all(np.ptp(gain) > 0 for gain in gains)
