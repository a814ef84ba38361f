"""Weights of four bits: how they are rounded, and which layers get them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.quant import graphs
from tests.unit.quant.test_quantise import ratio
from vitrify.arch.errors import CapacityError, InputError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import evaluate, shape_of
from vitrify.ir.quantisers import QUANTISERS, Quantiser
from vitrify.ops.linear.integer import QLinear
from vitrify.quant import scheme
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.loop import Loop
from vitrify.quant.operands import Source
from vitrify.quant.precision import Cost, Judge, size, weight_bits
from vitrify.quant.requant import weight_steps
from vitrify.quant.rounding import GRIDS, Moments, Separate, nearest
from vitrify.quant.tensors import Rows
from vitrify.quant.wanted import Weights

NANO = preset("nano")
#: In these results the class is read from the token stream: all layers but these may be narrow.
WIDE = {"patch", "head"}


def case(name: str = "vit"):
    net = graphs.Net(1)
    return net.model(graphs.MAPPINGS[name](net)), net.images()


def quantised(name: str = "vit", **limits: Any):
    model, images = case(name)
    return quantise(model, images, arch=NANO, weights=Weights(**limits))


@pytest.mark.parametrize("name", graphs.MAPPINGS)
def test_all_networks_may_have_four_bits(name: str):
    """And what was rounded to four bits is stored in four, wherever its columns come to lie."""
    graph = quantised(name, bits=4)
    program = compile_graph(graph, NANO)
    ops = list(program.instructions())
    found = {layer.name for layer in program.layers if ops[layer.instruction].nibbles}
    narrow = {layer.name for op in graph.ops for layer in op.layers() if layer.bits == 4}
    assert narrow
    assert narrow <= found


@pytest.mark.parametrize("trellis", [True, False])
def test_integers_that_a_file_brings_stay(trellis: bool):
    """On a core with codes they are bytes; if a row is none of them, or has -8, others stay."""
    model, images = case()
    model.meta[QUANTISERS] = [Quantiser("x", np.ones(1), np.zeros(1), -128, 127)]
    parameter = model.graph.initializers["block.fc2.weight"]
    own = np.random.default_rng(4).integers(-7, 8, shape_of(parameter)).astype(np.float32)
    own[:, 0], own[1, 0], own[2] = 7, -8, np.linspace(-3, 3, own.shape[1])
    parameter.const_value = ir.tensor(own / 20, name=parameter.name)
    graph = quantise(model, images, arch=replace(NANO, trellis=trellis), weights=Weights(4))
    (op,) = (op for op in graph.ops if op.name == "block.fc2")
    (layer,) = op.layers()
    assert layer.bits == (8 if trellis else 4)
    np.testing.assert_array_equal(layer.weight[3:, : own.shape[1]], own[3:])


def test_steps_too_coarse_for_a_stream_have_eight_bits():
    """Of two weights a row, the larger makes a result of few times itself."""
    model, images = case()
    parameter = model.graph.initializers["block.proj.weight"]
    few = np.zeros(shape_of(parameter), np.float32)
    few[np.arange(len(few)), np.arange(len(few)) % 5] = 40
    few[:, 7] = 3
    parameter.const_value = ir.tensor(few, name=parameter.name)
    graph = quantise(model, images, arch=NANO, weights=Weights(4))
    assert {op.name for op in graph.ops if 8 in weight_bits(op)} == WIDE | {"block.proj"}
    assert min(one.sqnr for one in compare(model, graph, images[:8], NANO)) > 25


def test_every_step_of_the_rounding_helps():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 48)) @ rng.normal(size=(48, 48))
    weight = rng.normal(size=(20, 48))
    # rows that have nothing to do with each other need little damping
    moments, grid = Moments(np.rint(20 * x)), replace(GRIDS[4], damping=GRIDS[8].damping)
    widest = np.abs(weight).max(axis=1) / grid.high

    def cost(step, rounded):
        assert rounded.min() >= -8
        assert rounded.max() <= 7
        return moments.cost(weight - step[:, None] * rounded).sum()

    once, step = replace(grid, sweeps=0), weight_steps(weight, moments, grid)
    costs = [
        cost(widest, nearest(weight, widest, grid)),
        cost(widest, moments.round(weight, widest, once)),
        cost(step, moments.round(weight, step, once)),
        cost(step, moments.round(weight, step, grid)),
    ]
    assert costs[1] < 0.5 * costs[0]
    assert costs[2] < 0.9 * costs[1]
    assert costs[3] < 0.98 * costs[2]


def test_rows_of_zeros_have_a_step():
    moments = Moments(np.ones((8, 4)))
    steps = weight_steps(np.array([[0.0] * 4, [1.0] * 4]), moments, GRIDS[4])
    assert steps[0] == 0 < steps[1]


def test_weights_of_inputs_that_are_zero_are_rounded():
    """Without damping their second moments have no Cholesky factor."""
    weight, step = np.array([[0.4, -1.6, 3.0]]), np.ones(1)
    for x in (np.zeros((8, 3)), np.eye(3)[:1]):
        assert (Moments(x).round(weight, step, GRIDS[4]) == [[0, -2, 3]]).all()


def test_four_bits_everywhere_but_at_the_ends():
    graph = quantised(bits=4)
    assert {op.name for op in graph.ops if 8 in weight_bits(op)} == WIDE
    wide, narrow = sum(map(size, quantised().ops)), sum(map(size, graph.ops))
    ends = sum(size(op) for op in graph.ops if op.name in WIDE)
    assert wide - ends == 2 * (narrow - ends)
    model, images = case()
    (name, found), = Evaluator(graph, NANO).outputs(images).items()
    assert ratio(evaluate(model, {"image": images})[name], found) > 15


def test_a_layer_is_judged_as_if_it_were_alone():
    model, images = case()
    wide, narrow = quantised(), quantised(bits=4)
    judge = Judge(model, NANO, images, {})
    others = {op.name: op for op in narrow.ops if op.name.endswith((".q", ".fc2"))}
    assert len(others) == 2
    for name, found in judge.each(wide, others).items():
        ops = [others[name] if op.name == name else op for op in wide.ops]
        assert found == judge.of(replace(wide, ops=ops))


def test_a_budget_is_kept():
    wide, narrow = (sum(map(size, quantised(bits=bits).ops)) for bits in (8, 4))
    budget = (wide + narrow) // 2
    graph = quantised(bits=None, budget_bytes=budget)
    chosen = next(point for point in graph.precision if point["chosen"])
    assert narrow < sum(map(size, graph.ops)) == chosen["bytes"] <= budget
    assert 0 < chosen["layers"] == sum(4 in weight_bits(op) for op in graph.ops)
    for op in graph.ops:
        if isinstance(op, QLinear) and op.add:
            # which is what a scale is for, of this layer and no other
            requant, scales = op.requant, graph.scales[op.name]
            unit = graph.tensors[op.out].scale * 2.0 ** -(requant.pre_shift + requant.post_shift)
            np.testing.assert_allclose(scales.weight, requant.multiplier * unit)
    costs = [point["divergence"] for point in graph.precision]
    assert costs[0] < chosen["divergence"] < costs[-1]
    with pytest.raises(InputError, match=f"is less than the {narrow} bytes"):
        quantised(bits=None, budget_bytes=narrow - 1)


def test_four_bits_that_are_there_are_not_rounded_again():
    model, images = case()
    narrow = quantised(bits=4)
    graph = quantise(model, images, arch=NANO, weights=Weights(None, 100.0), narrow=narrow)
    few = [op for op in graph.ops if 4 in weight_bits(op)]
    assert few
    assert all(any(op is one for one in narrow.ops) for op in few)


def test_a_limit_of_points_is_kept(monkeypatch):
    """Every layer of four bits costs a tenth of a point, by itself as with others."""
    def drop(_judge, graph):
        narrow = sum(4 in weight_bits(op) for op in graph.ops)
        return Cost(0.01 * narrow, 0.1 * narrow, 0.01 * narrow)

    monkeypatch.setattr(Judge, "of", drop)
    for limit, layers in ((0.0, 0), (0.35, 3), (None, 5), (100.0, 6)):
        graph = quantised(bits=None, max_drop=limit)
        assert [p["layers"] for p in graph.precision if p["chosen"]] == [layers]
        assert sum(4 in weight_bits(op) for op in graph.ops) == layers


def test_points_are_what_the_float_model_thinks_of_the_answers():
    model, images = case()
    judge = Judge(model, NANO, images, {})
    (name, exact), = judge._exact.items()
    assert judge.cost({name: exact[:, None]}) == Cost(0.0, 0.0, 0.0)
    share = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    lost = 100 * (share.max(axis=1) - share.min(axis=1)).mean()
    assert judge.cost({name: -exact}).drop == pytest.approx(lost)


def test_damping_helps_where_rows_of_an_image_are_alike():
    rng = np.random.default_rng(0)
    mixed, weight = rng.normal(size=(64, 64)), rng.normal(size=(40, 64))

    def rows(images):
        of_each = rng.normal(size=(images, 1, 64)) + 0.3 * rng.normal(size=(images, 50, 64))
        return np.rint(10 * of_each.reshape(-1, 64) @ mixed)

    seen, others = Moments(rows(40)), Moments(rows(400))
    step = np.abs(weight).max(axis=1) / 7

    def cost(damping):
        rounded = seen.round(weight, step, replace(GRIDS[4], damping=damping))
        return others.cost(weight - step[:, None] * rounded).sum()

    assert cost(GRIDS[4].damping) < 0.95 * cost(GRIDS[8].damping)


def test_noise_is_without_what_all_logits_have_in_common():
    model, images = case()
    judge = Judge(model, NANO, images, {})
    (name, exact), = judge._exact.items()
    assert judge.cost({name: exact + 3}).noise == pytest.approx(0, abs=1e-12)
    part = np.mean(exact, axis=1, keepdims=True)
    assert judge.cost({name: part + 0.9 * (exact - part)}).noise == pytest.approx(0.01)


def test_an_image_without_a_signal_is_one_of_many():
    model, images = case()
    judge = Judge(model, NANO, images, {})
    (name, exact), = judge._exact.items()
    exact[0] = 0  # a map in which nothing is found
    near = exact + np.random.default_rng(0).normal(0, 0.1, exact.shape)
    found = judge.cost({name: near}).noise
    rest = np.square(near - exact).sum() / np.square(exact).sum()
    assert rest / 10 < found < 10 * rest


def test_layers_of_the_least_noise_for_a_byte_are_the_first(monkeypatch):
    """The divergences that they add say the opposite."""
    def each(judge, graph, others, _progress=None):
        base = judge.of(graph)
        return {
            name: Cost(base.divergence - i, 0.0, base.noise + i * op.weight.size)
            for i, (name, op) in enumerate(others.items())
        }

    monkeypatch.setattr(Judge, "each", each)
    wide, narrow = (quantised(bits=bits) for bits in (8, 4))
    some = [a.name for a, b in zip(wide.ops, narrow.ops, strict=True)
            if weight_bits(a) != weight_bits(b)]
    graph = quantised(bits=None, budget_bytes=sum(map(size, wide.ops)) - 1)
    assert [op.name for op in graph.ops if 4 in weight_bits(op)] == some[:1]


def test_features_have_no_points():
    graph = quantised("features", bits=None, budget_bytes=10**6)
    assert {point["drop"] for point in graph.precision} == {None}
    with pytest.raises(InputError, match="no output of classes"):
        quantised("features", bits=None)


def test_what_cannot_be():
    model, images = case()
    bare = replace(NANO, nibbles=False)
    for bits in (4, None):
        with pytest.raises(CapacityError, match="is without 'nibbles'"):
            quantise(model, images, arch=bare, weights=Weights(bits))
    with pytest.raises(InputError, match="are for --weights auto"):
        Weights(4, max_drop=1.0)
    with pytest.raises(InputError, match="give one of"):
        Weights(None, max_drop=1.0, budget_bytes=3)
    with pytest.raises(InputError, match="0 to 100 points, not -1"):
        Weights(None, max_drop=-1.0)


def test_layers_are_rounded_for_what_those_before_them_make():
    _, images = case()
    graph = quantised(bits=4)
    tensors = dict(Evaluator(graph, NANO).steps(images))
    hidden = next(op for op in graph.ops if op.name.endswith(".fc1"))
    source = graph.tensors[hidden.out]
    loop = Loop(graph, NANO, images)
    x = Source(np.ones(source.channels), np.zeros(source.channels), Separate(*np.zeros((3, 1, 1))),
               np.arange(source.channels), zero_point=source.zero_point)
    seen = tensors[hidden.name].reshape(-1, source.channels) - float(source.zero_point)
    np.testing.assert_allclose(loop.moments(x, hidden.out, None).mean, seen.mean(axis=0), rtol=1e-5)
    some = loop.moments(replace(x), hidden.out, Rows.span(1, 2))
    np.testing.assert_allclose(
        some.energy, np.square(seen.reshape(len(images), -1, source.channels)[:, 1:3]).mean((0, 1)),
        rtol=1e-5)


def test_few_levels_take_flatter_weights():
    """Equalised inputs cost weights range, which those of four bits do not have."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 32)) * np.geomspace(0.2, 20, 32)
    matrix = rng.normal(size=(24, 32))
    peak = np.abs(rows).max(axis=0)
    spread = [
        np.ptp(np.log(np.abs(matrix).max(axis=0) / scheme.gains(rows, peak, matrix, grid.most)))
        for grid in (GRIDS[8], GRIDS[4])
    ]
    assert spread[1] < 0.9 * spread[0]


def test_inputs_that_never_change():
    """Steps of results are no finer than the multipliers of layers with narrow weights reach."""
    net = graphs.Net(3)
    x = net.tokens(0)
    fixed = net.builder.emit("ConstantRows", x, np.tile(net.normal(1, graphs.DIM), (4, 1)))
    attended = net.attention(net.linear(fixed, graphs.DIM, "fc"), "attention")
    model = net.model(net.head(net.add(x, net.linear(attended, graphs.DIM, "proj"), "sum")))
    images = net.images()
    graph = quantise(model, images, arch=NANO, weights=Weights(bits=4))
    assert [weight_bits(op) for op in graph.ops if op.name == "fc"] == [[4]]
    assert min(one.sqnr for one in compare(model, graph, images[:8], NANO)) > 20
