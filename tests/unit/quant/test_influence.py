"""Derivatives of canonical models, and how much each row of a layer's result counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant import graphs
from tests.unit.quant.graphs import DIM
from vitrify.arch.presets import preset
from vitrify.compiler.quantise import quantise
from vitrify.ir import array_of, evaluate
from vitrify.quant.derivatives import Differentiable, differentiable
from vitrify.quant.influence import influence
from vitrify.quant.loop import Loop
from vitrify.quant.operands import Source
from vitrify.quant.precision import Judge
from vitrify.quant.rounding import Moments, Separate
from vitrify.quant.tensors import Rows
from vitrify.quant.wanted import Weights

NANO = preset("nano")
#: Step of a difference quotient, and how near to the derivative it is in float32.
STEP, CLOSE = 1e-2, 0.02


def vit_of(kind: str):
    def made(net: graphs.Net) -> ir.Value:
        x = net.block(net.tokens(), "block", kind)
        rows = net.builder.emit("Rows", x, index=[2, 0, 2])
        return net.head(net.pool(net.norm(rows, "norm")))
    return made


CASES = {name: graphs.MAPPINGS[name] for name in (
    "vit", "pool_after_norm", "no_positions", "parallel", "two_attentions", "two_linears",
    "features",
)} | {kind: vit_of(kind) for kind in ("silu", "hard_swish")}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_onnx_runtime(name: str):
    net = graphs.Net(3)
    model, images = net.model(CASES[name](net)), net.images(4)
    assert differentiable(model)
    (result,) = (value.name or "" for value in model.graph.outputs)

    def exact() -> np.ndarray:
        return evaluate(model, {net.image.name or "": images}, [result])[result]

    done = Differentiable(model).forward(images)
    np.testing.assert_allclose(done.values[result], exact(), atol=1e-3)
    direction = net.normal(*exact().shape)
    found = done.backward({result: direction})
    layers = [node for node in model.graph if node.op_type == "Linear"]
    assert set(found) == {node.name for node in layers}
    for node in layers:
        x, parameter = node.inputs[0], node.inputs[1]
        assert x is not None
        assert parameter is not None
        weight = array_of(parameter)
        change = net.normal(*weight.shape) / 4
        sums = []
        for side in (1, -1):
            parameter.const_value = ir.tensor(weight + side * STEP * change, name=parameter.name)
            sums.append(float((exact().astype(np.float64) * direction).sum()))
        parameter.const_value = ir.tensor(weight, name=parameter.name)
        gradient = found[node.name or ""].reshape(-1, len(weight))
        read = done.values[x.name or ""].reshape(len(gradient), -1)
        slopes = gradient.T @ read * change
        assert (sums[0] - sums[1]) / (2 * STEP) == pytest.approx(
            float(slopes.sum()), rel=CLOSE, abs=CLOSE * float(np.abs(slopes).sum()) / 4
        )


def test_what_has_no_derivative():
    for name in ("vit", "two_attentions"):
        net = graphs.Net()
        model = net.model(graphs.MAPPINGS[name](net))
        next(node for node in model.graph if node.op_type == "LayerNorm").op_type = "Softmax"
        assert not differentiable(model)
        assert influence(model, net.images(2)) == {}
    net = graphs.Net()
    poles = net.activation(net.linear(net.tokens(), 8, "fc"), "act", "y = Log(x)")
    assert not differentiable(net.model(net.head(net.pool(poles))))


def test_rows_that_results_do_not_depend_on_count_least():
    net = graphs.Net(0)
    shares = influence(net.model(graphs.vit(net)), net.images(12))
    for name, share in shares.items():
        assert share.shape == (12, 1 if name == "head" else 1 + graphs.TOKENS)
        assert share.mean() == pytest.approx(1, rel=1e-4)
    # nothing reads the others behind the class token's
    assert (shares["block.fc2"][:, 1:] < 0.3).all()
    assert (shares["block.fc2"][:, 0] > 1).all()
    values = shares["block.attention.v"]
    assert values[:, 1:].min() < values[:, 1:].max()


def test_samples_that_count_more():
    rng = np.random.default_rng(0)
    x = 1 + rng.normal(size=(50, 6)).astype(np.float32)
    weights = rng.integers(0, 4, 50).astype(np.float32)
    several = np.repeat(x, weights.astype(int), axis=0)
    few, repeated = Moments(x, weights), Moments(several - several.mean(axis=0))
    error = rng.normal(size=(3, 6))
    np.testing.assert_allclose(few.mean, several.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(few.cost(error), repeated.cost(error), rtol=1e-3)
    np.testing.assert_allclose(few.energy, repeated.energy, rtol=1e-3)
    assert (few.peak(error) == Moments(x).peak(error)).all()


def test_weights_are_rounded_for_the_rows_that_count():
    """Of several networks, on images that nothing was rounded for."""
    noise = []
    for seed in (1, 4, 5, 6, 7):
        net = graphs.Net(seed)
        model, images = net.model(graphs.vit(net)), net.images(128)
        some, others = images[:64], images[64:]
        found = [
            quantise(model, some, arch=NANO, weights=Weights(4), influence=known)
            for known in (None, influence(model, some))
        ]
        judge = Judge(model, NANO, others, {})
        noise.append([judge.of(graph).noise for graph in found])
    print(noise)
    equal, weighed = np.log(noise).mean(axis=0)
    assert weighed < equal - 0.05


def test_a_loop_knows_rows_by_their_numbers():
    net = graphs.Net(1)
    model, images = net.model(graphs.vit(net)), net.images(6)
    shares = net.rng.uniform(0.5, 2, (6, 5)).astype(np.float32)
    loop = Loop(quantise(model, images, arch=NANO), NANO, images, {"fc": shares})
    x = Source(np.ones(DIM), np.zeros(DIM), Separate(*np.zeros((3, 1, 1))), np.arange(DIM))
    tensor = "block.attention.v"
    plain = loop.moments(x, tensor, None, "other")
    assert not np.allclose(loop.moments(x, tensor, None, "fc").mean, plain.mean, atol=1e-3)
    (rows,) = (run.read(tensor)[:, 2] for run in loop._runs)
    some = loop.moments(replace(x), tensor, Rows.span(2, 1), "fc")
    np.testing.assert_allclose(
        some.mean, shares[:, 2] @ rows / shares[:, 2].sum(), rtol=1e-4, atol=1e-4
    )
