"""One graph of every kind of operation on the simulated core: every tensor as on golden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.cosim.test_compiled_experts import run
from tests.support.synthetic import vision_transformer
from tests.unit.compiler import test_fold, test_layers_in_bands
from tests.unit.ops import (
    test_attention,
    test_attention_bands,
    test_conv,
    test_joined,
    test_map_pool,
    test_mix,
    test_multiply,
    test_norm,
    test_product,
    test_rotary,
    test_rows,
)
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.presets import preset
from vitrify.codegen.strategy import Ahead, PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.estimate import estimate
from vitrify.ir.quantisers import QUANTISERS, Quantiser
from vitrify.ops.attention.integer import QAttention
from vitrify.ops.linear.integer import QLinear
from vitrify.program import Program
from vitrify.runtime import InferenceSession

pytestmark = pytest.mark.slow
NANO = preset("nano")


def rows(net: Net) -> ir.Value:
    return test_rows.in_windows(net, test_rows.ORDERS["permuted"])


def lists_that_take_turns(net: Net) -> ir.Value:
    return test_rows.far_and_near(net)


def windows_and_bias(net: Net) -> ir.Value:
    heads, groups, own, queries, count = test_attention.BIASES["for each window and head"]
    bias = 2 * net.normal(*own, count, 4 // groups)
    bias[..., -1, 0] = -np.inf
    return test_attention.crossed(net, heads, groups, queries, DIM, DIM, bias)


def mix(net: Net) -> ir.Value:
    return test_mix.mixed(net, *test_mix.CASES["heads and groups"])


def conv(net: Net) -> ir.Value:
    return convolved(net, "strides")


def depthwise(net: Net) -> ir.Value:
    return convolved(net, "depthwise")


def convolved(net: Net, name: str) -> ir.Value:
    case = test_conv.CASES[name]
    return net.linear(test_conv.conv(net, test_conv.image_map(net, case[0], 4), case), 7, "last")


def largest(net: Net) -> ir.Value:
    return net.linear(test_map_pool.pool(net, test_map_pool.CASES["largest, padded"]), 7, "last")


def concatenated(net: Net) -> ir.Value:
    x = net.builder.emit("ConcatRows", *test_joined.parts(net), name="join")
    return test_joined.finished(net, x)


def zeros_between_rows(net: Net) -> ir.Value:
    return test_rows.of_attention(net, test_rows.ZEROS["between"])


def parts_of_rows(net: Net) -> ir.Value:
    return test_rows.parts_of_rows(net, 2)


def norm_of_a_map(net: Net) -> ir.Value:
    return test_norm.normalised(net, "GroupNorm", groups=2)


def the_larger_of_two(net: Net) -> ir.Value:
    x = net.linear(net.norm(net.tokens(), "norm"), DIM, "x")
    y = net.builder.emit("Maximum", x, net.linear(x, DIM, "y"), name="larger")
    return net.linear(y, 7, "last")


OPERATIONS: dict[str, Callable[[Net], ir.Value]] = {
    **{f.__name__: f for f in (
        rows, lists_that_take_turns, windows_and_bias, mix, conv, depthwise, largest, concatenated,
        zeros_between_rows, parts_of_rows, norm_of_a_map, the_larger_of_two,
    )},
    "positions": lambda net: test_attention.positioned(net, 2, 2, 8),
    "product": lambda net: test_product.product(net, *test_product.CASES["groups"]),
    "cross_covariance": test_product.GRAPHS["cross covariance"],
    "function_of_scores": lambda net: test_product.weighed(net, -1.5),
    "divided": test_product.divided,
    "softmax": test_product.shares,
    "multiply": test_multiply.GRAPHS["swiglu"],
    "multiply_by_narrow": test_multiply.GRAPHS["weighed_heads"],
    "rms_norm": test_norm.GRAPHS["in_every_block"],
    "rotary": test_rotary.GRAPHS["halves"],
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str) -> None:
    net = Net(3)
    model, images = net.model(OPERATIONS[name](net)), net.images(16)
    program = compile_graph(quantise(model, images, arch=NANO), NANO, batch=2)
    compare(program, images[:4], seed=len(name))


def test_relu_in_unsigned_bytes() -> None:
    """Formats of a file: zero is the byte -128 of the table, and streams through the array."""
    net = Net(3)
    hidden = net.activation(net.linear(net.norm(net.tokens(), "norm"), 24, "up"), "act", "relu")
    model, images = net.model(net.linear(hidden, 7, "last")), net.images(16)
    step, zero = np.array(0.02), np.array(0.0)
    model.meta[QUANTISERS] = [Quantiser("act", step, zero, 0, 255, hidden.name or "")]
    graph = quantise(model, images, arch=NANO)
    (table,) = [op.table for op in graph.ops if isinstance(op, QLinear) and op.table is not None]
    assert table.min() == -128
    compare(compile_graph(graph, NANO, batch=2), images[:4], seed=7)


#: A network, banks of the memory that holds no more than a band, and bands.
BANDS: dict[str, tuple[Callable[[Net], ir.Value], int, int]] = {
    "windows": (lambda net: test_attention_bands.network(net, 8), 4, 8),
    "heads": (test_attention_bands.many_heads, 6, 4),
}


@pytest.mark.parametrize("name", BANDS)
def test_attention_in_bands(name: str) -> None:
    """Split for a core whose memory is smaller."""
    make, banks, bands = BANDS[name]
    net = Net(3)
    model, images = net.model(make(net)), net.images(16)
    small = replace(NANO, name="small", banks=banks, bank_words=32)
    graph = quantise(model, images, arch=small)
    assert sum(isinstance(op, QAttention) for op in graph.ops) == bands
    compare(compile_graph(graph, NANO, batch=2), images[:4], seed=bands)


def test_three_layers_in_blocks_of_lines() -> None:
    net = Net(3)
    model, images = net.model(test_conv.inverted_bottleneck(net)), net.images(16)
    graph = quantise(model, images, arch=NANO)
    blocks = PlacementStrategy(row_blocks=2, late=True)
    program = compile_graph(graph, NANO, batch=2, ways=[blocks])
    assert {"act1.block", "act2.block"} <= {layer.tensor.name for layer in program.layers}
    compare(program, images[:4], seed=2)


@pytest.mark.parametrize(
    "name", ["from the image on", "a sum that bands read before", "a sum behind what reads it"]
)
def test_bands_of_layers(name: str) -> None:
    parts, bands, _ = test_layers_in_bands.CASES[name]
    graph, images = test_layers_in_bands.quantised()
    _, way = test_layers_in_bands.cut(graph, *parts, bands=bands)
    program = compile_graph(graph, NANO, ways=[way])
    assert any(".band" in layer.tensor.name for layer in program.layers)
    compare(program, images, seed=bands)


def test_products_in_bands() -> None:
    """Some rows of sums behind others that read them, and heads side by side."""
    net = Net(5)
    model, images = net.model(test_layers_in_bands.factorised(net, True)), net.images(8)
    graph = leave_out(quantise(model, images, arch=NANO))
    parts = ("q", "own", "pixels", "near", "both", "pad", "found", "sum")
    _, way = test_layers_in_bands.cut(graph, *parts, bands=5)
    program = compile_graph(graph, NANO, ways=[way])
    assert any(".band" in layer.tensor.name for layer in program.layers if "found" in layer.name)
    compare(program, images[:2], seed=5)


def test_results_side_by_side() -> None:
    net = Net(4)
    model, images = net.model(test_fold.dense(net, 2)), net.images(16)
    program = compile_graph(quantise(model, images, arch=NANO), NANO, batch=2)
    assert program.outputs[0].channels > 2
    compare(program, images[:4], seed=4)


@pytest.mark.parametrize("name", ["rows", "windows_and_bias", "product"])
def test_first_ops_image_by_image(name: str) -> None:
    net = Net(3)
    model, images = net.model(OPERATIONS[name](net)), net.images(16)
    graph = quantise(model, images, arch=NANO)
    way = PlacementStrategy(alone=len(graph.ops) // 2)
    compare(compile_graph(graph, NANO, batch=3, ways=[way]), images[:6], seed=6)


@pytest.mark.parametrize("slots", [8, 16])
def test_rows_and_weights_that_are_loaded(slots: int) -> None:
    net = Net(11)
    model, images = net.model(test_rows.beside_weights(net)), net.images(16)
    graph = quantise(model, images, arch=NANO)
    way = PlacementStrategy(ahead=Ahead(slots, pieces=True))
    program = compile_graph(graph, NANO, batch=2, ways=[way])
    compare(program, images[:4], seed=5)


def test_sums_in_pieces() -> None:
    """Five rows: the weights of all layers are loaded, and statistics are gathered behind them.

    The estimator knows that the dispatcher waits while the queue of LOADs is full.
    """
    graph = vision_transformer(image=(1, 4, 4), pooled=True, classes=60)
    way = PlacementStrategy(ahead=Ahead(8, pieces=True))
    program = compile_graph(graph, NANO, batch=2, ways=[way])
    images = np.random.default_rng(3).normal(size=(4, 1, 4, 4)).astype(np.float32)
    compare(program, images, seed=4)
    _, statistics = run(program, images[:2])
    assert abs(estimate(program).cycles - statistics.cycles) <= 0.03 * statistics.cycles


def compare(program: Program, images: np.ndarray, seed: int) -> None:
    """Two jobs, so that nothing of the first may matter to the second."""
    out, statistics = run(program, images, stall=0.2, seed=seed)
    with InferenceSession(program, "golden") as golden:
        (exact,) = golden.run(None, {program.input.name: images})
        np.testing.assert_array_equal(out, exact)
        assert statistics is not None
        assert golden.statistics is not None
        assert statistics.macs == golden.statistics.macs
