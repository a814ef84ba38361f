from pathlib import Path

import numpy as np
import pytest

from tests.unit.quant import graphs
from vitrify.arch import formats
from vitrify.arch.errors import InputError, ModelError, UnsupportedOpError
from vitrify.arch.presets import preset
from vitrify.compiler.quantise import quantise
from vitrify.frontend import canonicalise, load
from vitrify.ir import array_of, evaluate, shape_of
from vitrify.ops.attention.integer import QAttention
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.linear.plan import copy_stream
from vitrify.ops.pool.integer import QPool
from vitrify.ops.registry import PLANS
from vitrify.program.preprocess import parse
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator, quantise_input
from vitrify.quant.graph import QuantGraph
from vitrify.quant.planner import make_plan

#: Without mixtures: those are in test_experts.py.
FIXTURES = sorted(
    path for path in (Path(__file__).parents[2] / "data").glob("*.onnx")
    if not path.name.startswith(("moe_", "moh_"))
)
SPEC = parse("mean=0.5,std=0.5")
NANO = preset("nano")


def ratio(real, got):
    """Signal to noise in dB."""
    got = np.asarray(got).reshape(real.shape)
    return 10 * np.log10(np.mean(real**2) / max(np.mean((real - got) ** 2), 1e-30))


def check_legal(graph: QuantGraph, arch):
    """Everything the core's formats demand of a graph."""
    written = {graph.input.out} | {constant.out for constant in graph.constants}
    for op in graph.ops:
        out = graph.tensors[op.out]
        assert graph.macs[op.name] >= 0
        for x in [op.q, op.k, op.v] if isinstance(op, QAttention) else [op.x]:
            assert x in written, op.name
        written.add(op.out)
        requant = op.logits if isinstance(op, QAttention) else op.requant
        assert 0 <= requant.pre_shift <= formats.MAX_PRE_SHIFT
        assert requant.post_shift in formats.POST_SHIFTS
        assert np.min(requant.multiplier) >= 1
        assert np.max(requant.multiplier) < 1 << formats.MULTIPLIER_BITS
        assert np.abs(requant.bias).max() < 1 << (formats.BIAS_BITS - 1)
        if isinstance(op, QLinear):
            x = graph.tensors[op.x]
            assert op.weight.shape == (out.channels, x.channels)
            assert np.abs(op.weight.astype(int)).max() <= 127
            assert (op.norm is None) == (x.bits == 8)
            assert (op.rows.count if op.rows else x.rows) == out.rows
            assert op.table is None or (out.bits == 8 and len(op.table) == formats.TABLE_ENTRIES)
            assert not op.add or out.bits == 16
        elif isinstance(op, QPool):
            assert 1 <= op.weight <= 127
            assert out.rows == 1
    for constant in graph.constants:
        assert 8 * constant.value.itemsize == graph.tensors[constant.out].bits
    assert len({op.name for op in graph.ops}) == len(graph.ops)


@pytest.mark.parametrize(
    ("mapping", "arch"), [*((name, "nano") for name in sorted(graphs.MAPPINGS)), ("vit", "kv260")]
)
def test_every_mapping_follows_the_float_graph(mapping, arch):
    net = graphs.Net(3)
    output = graphs.MAPPINGS[mapping](net)
    model, images = net.model(output), net.images()
    graph = quantise(model, images, arch=preset(arch), preprocess=SPEC)
    check_legal(graph, preset(arch))
    test = net.images(16)
    name = output.name or ""
    real = evaluate(model, {"image": test}, [name])[name]
    got = Evaluator(graph, preset(arch)).outputs(test)
    assert list(got) == [name]
    assert graph.tensors[graph.outputs[name]].bits == 16
    assert ratio(real, got[name]) > 24
    for result in compare(model, graph, test, preset(arch)):
        assert result.sqnr > 20, result


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_exporters_model(path):
    model = canonicalise(load(path))
    feed = model.graph.inputs[0]
    shape = [int(size) for size in shape_of(feed)[1:]]
    images = np.random.default_rng(1).normal(size=(24, *shape)).astype(np.float32)
    graph = quantise(model, images, arch=NANO)
    check_legal(graph, NANO)
    real = evaluate(model, {feed.name or "": images}, list(graph.outputs))
    for name, got in Evaluator(graph, NANO).outputs(images).items():
        # Weights are random: at 16 channels these networks are noisier than trained ones.
        assert ratio(real[name], got) > 20, name


def test_pixels_are_exact_with_preprocessing():
    net = graphs.Net(1)
    model, images = net.model(graphs.vit(net)), net.images()
    graph = quantise(model, images, arch=NANO, preprocess=SPEC)
    pixels = np.arange(2 * 3 * 64, dtype=np.uint16).reshape(2, 3, 8, 8).astype(np.uint8)
    rows = quantise_input(graph.input, SPEC.normalise(pixels))
    assert rows.shape == (2, 5, 48)
    assert not rows[:, 0].any()
    patch = pixels[1, :, 4:8, 0:4].reshape(-1).astype(int) - 128
    np.testing.assert_array_equal(rows[1, 3], patch)


def test_input_range_without_preprocessing_spans_the_calibration():
    net = graphs.Net(1)
    model, images = net.model(graphs.vit(net)), net.images()
    graph = quantise(model, images, arch=NANO)
    rows = quantise_input(graph.input, images)[:, 1:]
    assert rows.min() == -128
    assert rows.max() == 127


def test_a_large_unit_is_split():
    net = graphs.Net(4)
    x = net.tokens()
    hidden = net.linear(net.norm(x, "norm"), graphs.HIDDEN, "fc1")
    fc1 = hidden.producer()
    assert fc1 is not None
    weight = fc1.inputs[1]
    assert weight is not None
    array_of(weight)[5] *= 40
    result = net.linear(net.activation(hidden, "act"), graphs.DIM, "fc2")
    model = net.model(net.head(net.pool(net.add(x, result, "add"))))
    images = net.images()
    graph = quantise(model, images, arch=NANO, preprocess=SPEC)
    check_legal(graph, NANO)
    tensor = graph.tensors["act"]
    assert set(tensor.copies) == {5}
    assert tensor.channels == graphs.HIDDEN + len(tensor.copies)
    assert graph.macs["fc1"] == graph.tensors["act"].rows * graphs.HIDDEN * graphs.DIM
    results = {r.name: r for r in compare(model, graph, images, NANO)}
    assert results["fc1"].sqnr > 35
    assert results["fc2"].sqnr > 30


def test_a_stream_that_grows_fills_the_range_while_it_is_small():
    """Its step is that of all that it becomes; what is read of it has a scale of its own."""
    net = graphs.Net(6)
    x = net.tokens()
    early = net.linear(x, graphs.DIM, "early")
    result = net.linear(net.norm(x, "norm"), graphs.DIM, "large")
    large = result.producer()
    assert large is not None
    weight = large.inputs[1]
    assert weight is not None
    array_of(weight)[:] *= 100
    late = net.head(net.norm(net.pool(net.add(x, result, "add")), "last"))
    model, images = net.model(early, late), net.images()
    graph = quantise(model, images, arch=NANO, preprocess=SPEC)
    check_legal(graph, NANO)
    results = {r.name: r for r in compare(model, graph, images, NANO)}
    assert results["early"].sqnr > 38, results["early"]


def test_readers_of_large_and_of_small_results_count_alike():
    """The gains of what both read, each of other channels above all."""
    net = graphs.Net(1)
    x = net.norm(net.tokens(), "norm")
    small, large = (net.linear(x, graphs.DIM, name) for name in ("small", "large"))
    half = graphs.DIM // 2
    for result, factors in (small, (0.01, 1)), (large, (100, 1)):
        layer = result.producer()
        assert layer is not None
        weight = layer.inputs[1]
        assert weight is not None
        array_of(weight)[:] *= np.repeat(factors, half)
    model, images = net.model(small, large), net.images()
    graph = quantise(model, images, arch=NANO, preprocess=SPEC)
    results = {r.name: r.sqnr for r in compare(model, graph, images, NANO)}
    assert min(results["small"], results["large"]) > 38, results


def test_evaluation_is_the_same_in_any_batch():
    net = graphs.Net(2)
    model, images = net.model(graphs.vit(net)), net.images(13)
    graph = quantise(model, images, arch=NANO)
    evaluator = Evaluator(graph, NANO)
    whole = evaluator.run(images)
    assert set(whole) == {op.name for op in graph.ops} | {graph.input.out}
    for i in (0, 12):
        for name, value in evaluator.run(images[i : i + 1]).items():
            np.testing.assert_array_equal(value[0], whole[name][i], err_msg=name)
    assert set(evaluator.run(images[:1], keep=["head"])) == {"head"}


def test_quantising_twice_gives_the_same_graph():
    net = graphs.Net(2)
    model, images = net.model(graphs.vit(net)), net.images(20)
    first, second = (quantise(model, images, arch=NANO) for _ in range(2))
    for a, b in zip(first.ops, second.ops, strict=True):
        if isinstance(a, QLinear):
            assert isinstance(b, QLinear)
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.requant.bias, b.requant.bias)


def test_additions_wait_for_the_readers_of_the_old_stream():
    net = graphs.Net(0)
    plan = make_plan(net.model(graphs.parallel(net)), PLANS, copy_stream)
    order = [op.name for op in plan.ops]
    assert order.index("fc1") < order.index("proj") < order.index("fc2")


def test_progress_is_reported():
    net = graphs.Net(0)
    seen = []
    quantise(
        net.model(graphs.vit(net)),
        net.images(20),
        arch=NANO,
        progress=lambda what, part: seen.append((what, part)),
    )
    assert {what for what, _ in seen} == {"calibrating", "quantising"}
    parts = [part for _, part in seen]
    assert parts == sorted(parts)
    assert parts[0] > 0
    assert parts[-1] == 1


# Errors --------------------------------------------------------------------------------------
def refused(build, message):
    net = graphs.Net(0)
    with pytest.raises(UnsupportedOpError, match=message):
        quantise(net.model(build(net)), net.images(4), arch=NANO)


def test_patches_of_two_sizes_are_refused():
    def build(net):
        patches, weight = net.patches(), net.normal(graphs.DIM, 12)
        small = net.builder.emit(
            "PatchEmbed", net.image, weight, net.normal(graphs.DIM), name="again", patch=[2, 2]
        )
        return net.builder.emit("ConcatRows", patches, small, name="both")

    refused(build, r"'again' \(PatchEmbed\) cannot run on the core: another embedding cuts .* 4x4")


def test_a_function_that_makes_extreme_values_is_named():
    """Weights are as they should be: it is Exp of large numbers that no step fits."""
    net = graphs.Net(5)
    x = net.linear(net.norm(net.tokens(0), "norm"), graphs.DIM, "x")
    large = net.builder.emit("Affine", x, np.full((1, 1), 8.0), np.zeros((1, 1)), name="large")
    y = net.linear(net.activation(large, "exp", "y = Exp(x)"), 7, "last")
    with pytest.raises(ModelError, match=r"last: .* its weights and its inputs .Exp of large"):
        quantise(net.model(y), net.images(4), arch=NANO)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 3, 9, 8), np.float32), r"shape \[4, 3, 9, 8\], the model's input 'image'"),
        (np.zeros((3, 8, 8), np.float32), r"shape \[3, 8, 8\]"),
        (np.zeros((0, 3, 8, 8), np.float32), "no calibration images"),
        (np.zeros((4, 3, 8, 8), np.uint8), "must be finite floats"),
        (np.full((4, 3, 8, 8), np.nan, np.float32), "must be finite floats"),
    ],
)
def test_calibration_errors(images, message):
    net = graphs.Net(0)
    model = net.model(graphs.vit(net))
    with pytest.raises(InputError, match=message):
        quantise(model, images, arch=NANO)


def test_calibration_with_constant_images_still_works():
    net = graphs.Net(0)
    model = net.model(graphs.vit(net))
    graph = quantise(model, np.zeros((4, 3, 8, 8), np.float32), arch=NANO, preprocess=SPEC)
    check_legal(graph, NANO)
