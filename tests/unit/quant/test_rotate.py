"""Residual streams in another basis: the same results, and no channel that stands out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant import graphs, mixtures
from vitrify.arch.presets import preset
from vitrify.compiler.basis import quantise_rotated
from vitrify.compiler.driver import silent
from vitrify.compiler.quantise import quantise
from vitrify.ir import array_of, evaluate
from vitrify.ir.quantisers import QUANTISERS, Quantiser
from vitrify.quant.precision import Judge
from vitrify.quant.rotate import rotated
from vitrify.quant.wanted import NARROW, WIDE, Weights

NANO = preset("nano")


#: Parameters that the values of heads are in.
VALUES = {"block.attention.v.weight", "block.attention.v.bias", "block.proj.weight"}


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
    new = rotated(model) or model
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
    found = changed(model, new)
    assert bool(found - VALUES) == some
    assert found >= VALUES or "block.attention.v.weight" not in parameters(model)


def test_values_that_something_else_reads_stay():
    net = graphs.Net(2)
    model = net.model(graphs.MAPPINGS["pre_norm"](net))
    (values,) = (node.outputs[0] for node in model.graph if node.name == "block.attention.v")
    model.graph.outputs.append(values)
    assert rotated(model) is None


@pytest.mark.parametrize("name", sorted(mixtures.MAPPINGS))
def test_results_of_experts_and_tasks_are_the_same(name: str):
    net = mixtures.MixedNet(2)
    model = net.model(mixtures.MAPPINGS[name](net))
    feeds = {"image": net.images(4)}
    if name == "tasks":
        feeds["task"] = np.array([0, 2, 1, 0])
    same(model, feeds)


@pytest.mark.parametrize("padded", [True, False])
def test_rows_of_zeros_behind_a_normalisation(padded: bool):
    """Windows are filled up with them (Swin): they are without the beta that layers would get."""
    net = graphs.Net()
    x = net.tokens()
    rows = net.builder.emit(
        "Rows", net.norm(x, "norm1"), name="window", index=[0, 1, 2, 3, 4, -1 if padded else 0])
    hidden = net.activation(net.linear(rows, graphs.HIDDEN, "fc1"), "act")
    back = net.builder.emit("Rows", hidden, name="back", index=[5, 0, 1, 2, 3])
    x = net.add(x, net.linear(back, graphs.DIM, "fc2"), "add")
    model = net.model(net.head(net.select(net.norm(x, "norm"))))
    new = same(model, {"image": net.images(4)})
    assert bool(changed(model, new)) != padded


def test_every_parameter_of_a_stream_is_rotated():
    net = graphs.Net(2)
    model = net.model(graphs.vit(net))
    rotation = rotated(model)
    assert rotation is not None
    new = parameters(rotation)
    assert changed(model, rotation) == set(new)
    assert not any(np.ptp(new[name]) for name in new if name.endswith((".gamma", ".beta")))


def test_a_large_channel_is_spread_over_all():
    model, images = outlying()
    new = rotated(model)
    assert new is not None

    def share(each: ir.Model):
        x = evaluate(each, {"image": images}, ["tokens"])["tokens"]
        size = np.abs(x - x.mean(axis=-1, keepdims=True)).mean(axis=(0, 1))
        return size.max() / size.sum()

    assert share(model) > 0.4
    assert share(new) < 0.25


def test_seeds_choose_the_basis():
    model, _ = outlying()
    first, second = rotated(model, 0), rotated(model, 1)
    assert first is not None
    assert second is not None
    assert changed(first, second)


def wanted(model: ir.Model, images: np.ndarray, weights: Weights):
    return quantise_rotated(
        model, images, arch=NANO, preprocess=None, progress=silent, weights=weights
    )


@pytest.mark.parametrize(("seed", "helps"), [(1, False), (2, True)])
def test_weights_of_four_bits_get_the_basis_with_the_least_noise(seed: int, helps: bool):
    net = graphs.Net(seed)
    model, images = net.model(graphs.vit(net)), net.images(16)
    basis, graph = wanted(model, images, Weights(NARROW))
    assert (basis is not model) == helps
    plain = quantise(model, images, arch=NANO, weights=Weights(NARROW))
    found, before = (Judge(model, NANO, images, {}).of(each).noise for each in (graph, plain))
    assert found <= before


def test_a_mixture_of_bits_gets_that_basis_too():
    net = graphs.Net(2)
    model, images = net.model(graphs.vit(net)), net.images(16)
    basis, _ = wanted(model, images, Weights(NARROW))
    mixed, graph = wanted(model, images, Weights(None, max_drop=100))
    assert not changed(basis, mixed)
    assert graph.precision


def test_eight_bits_and_quantised_models_stay_as_they_are():
    model, images = outlying()
    assert wanted(model, images, Weights(WIDE))[0] is model
    model.meta[QUANTISERS] = [Quantiser("x", np.ones(1), np.zeros(1), -128, 127)]
    assert wanted(model, images, Weights(NARROW))[0] is model
