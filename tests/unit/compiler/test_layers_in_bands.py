"""Layers that are made band by band where what is between them does not fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.support.execute import tensors
from tests.unit.ops.checks import NANO
from tests.unit.ops.test_conv import conv
from tests.unit.ops.test_image_conv import stem
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import CapacityError
from vitrify.codegen.strategy import Passing, PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.bands import in_bands, may_pass
from vitrify.compiler.quantise import quantise
from vitrify.compiler.unread import leave_out
from vitrify.ops.linear.integer import QLinear
from vitrify.ops.passing.integer import QAside, QRead
from vitrify.quant.evaluate import Evaluator
from vitrify.quant.graph import QuantGraph

WIDE = 24


def bottleneck(net: Net, x: ir.Value, name: str, stride: int) -> ir.Value:
    """Widened, convolved, weighed by its mean and narrowed: MBConv without the sum."""
    wide = net.activation(net.linear(x, WIDE, f"{name}.wide"), f"{name}.act1", "silu")
    case = (WIDE, WIDE, (3, 3), stride, (1, 1, 1, 1), 1, WIDE)
    made = net.activation(conv(net, wide, case, f"{name}.depthwise"), f"{name}.act2", "silu")
    mean = net.pool(made, f"{name}.mean")
    narrow = net.activation(net.linear(mean, 8, f"{name}.squeeze"), f"{name}.act3", "relu")
    gate = net.activation(net.linear(narrow, WIDE, f"{name}.excite"), f"{name}.gate", "sigmoid")
    gate = net.builder.emit("Unfold", gate, name=f"{name}.row", parts=1)
    both = net.builder.emit("Multiply", made, gate, name=f"{name}.times")
    return net.linear(both, DIM, f"{name}.narrow")


def stages(net: Net) -> ir.Value:
    """A stem and two such blocks, the first of which halves the map and pools beside it."""
    x = net.activation(stem(net, (3, 3), (1, 1), (1, 1, 1, 1)), "act", "silu")
    x = conv(net, x, (DIM, DIM, (3, 3), 1, (1, 1, 1, 1), 1, 1), "second")
    pooled = net.builder.emit(
        "Pool", x, name="pool", map=[8, 8], kernel=[2, 2], strides=[2, 2], pads=[0] * 4,
        kind="average", count_include_pad=1,
    )
    x = net.add(bottleneck(net, x, "first", 2), pooled, "sum1")
    x = net.add(bottleneck(net, x, "again", 1), x, "sum2")
    return net.linear(net.pool(net.norm(x, "norm"), "mean"), 7, "last")


def quantised(seed: int = 3) -> tuple[QuantGraph, np.ndarray]:
    """Its integers, and images."""
    net = Net(seed)
    return quantise(net.model(stages(net)), net.images(16), arch=NANO), net.images(2)


def cut(graph: QuantGraph, *parts: str, bands: int = 3) -> tuple[QuantGraph, PlacementStrategy]:
    """The graph with tensors passing whose names begin with some words, and the way to place it."""
    passing = Passing(frozenset(
        other for name, mates in may_pass(graph).items() if name.startswith(parts)
        for other in mates
    ), bands)
    made = in_bands(graph, passing).graph
    assert passing.tensors.isdisjoint(name for op in made.ops for name in op.sources())
    return made, PlacementStrategy(passing=passing)


#: What passes, in how many bands, and what that takes beside parts of layers.
CASES = {
    "the stem": (("second", "image"), 3, {QRead}),
    "from the image on": (("image", "act", "second", "first.act1", "first.act2.t", "t"), 4,
                          {QRead}),
    "what is widened": (("first.act1", "again.act1"), 2, set()),
    "a sum that bands read before": (("again.act", "first.times", "again.times"), 2, {QAside}),
    "a sum behind what reads it": (("again.act", "first.times", "again.times"), 4, set()),
    "lines of one map": (("second", "first.act1"), 64, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_bands_have_the_integers_of_the_whole(name: str) -> None:
    parts, bands, more = CASES[name]
    graph, images = quantised()
    made, way = cut(graph, *parts, bands=bands)
    assert len(made.ops) > len(graph.ops)
    assert {type(op) for op in made.ops} & {QRead, QAside} == more
    wanted, found = (Evaluator(each, NANO).outputs(images) for each in (graph, made))
    (key,) = wanted
    assert (wanted[key] == found[key]).all()
    program = compile_graph(graph, NANO, ways=[way])
    assert program.macs == sum(graph.macs.values())
    _, (output,) = tensors(program, images[:1])
    assert (output.reshape(-1) == wanted[key][0].reshape(-1).astype(np.float32)).all()


def test_what_has_no_room_passes() -> None:
    """As a whole it takes more memory than there is; bands are no narrower than they have to be."""
    graph, images = quantised()
    small = replace(NANO, name="small", banks=4, bank_words=128)
    plain, program = compile_graph(graph, NANO), compile_graph(graph, small)
    assert plain.metadata["token_memory_bytes"] > small.token_bytes
    assert program.metadata["token_memory_bytes"] <= small.token_bytes
    assert program.macs == plain.macs
    found, exact = (tensors(each, images[:1])[1][0] for each in (program, plain))
    assert (found == exact).all()
    bands = [layer for layer in program.layers if ".band" in layer.tensor.name]
    assert 0 < max(Counter(name for name, _ in {
        (layer.name, layer.tensor.name) for layer in bands
    }).values()) < 16
    with pytest.raises(CapacityError):
        compile_graph(graph, replace(small, name="smaller", bank_words=64))


def test_rows_that_are_made_again_count_once() -> None:
    """Lines that two bands read, and all of them for what is weighed by their mean."""
    graph, _ = quantised()
    made, _ = cut(graph, "first.act1", bands=2)
    parts = [op for op in made.ops if isinstance(op, QLinear) and op.name == "first.wide"]
    rows = [(op.band.start, made.tensors[op.out].rows, op.band.done) for op in parts if op.band]
    assert rows == [(0, 32, 0), (24, 40, 32), (0, 32, 64), (24, 40, 64)]


@pytest.mark.parametrize("bands", [2, 9])
def test_rows_of_two_tensors_behind_each_other(bands: int) -> None:
    """Bands with rows of the one read nothing of the other."""
    net = Net(1)
    x = net.activation(stem(net, (2, 2), (1, 1), (0, 0, 1, 1)), "act")
    one, two = (net.activation(net.linear(x, DIM, name), f"{name}.act") for name in "ab")
    joined = net.builder.emit("ConcatRows", one, two, name="join")
    result = net.linear(net.pool(net.norm(joined, "norm"), "mean"), 7, "last")
    graph, images = quantise(net.model(result), net.images(8), arch=NANO), net.images(2)
    made, way = cut(graph, "image", "act", "a.act", "b.act", bands=bands)
    wanted, found = (Evaluator(each, NANO).outputs(images) for each in (graph, made))
    (key,) = wanted
    assert (wanted[key] == found[key]).all()
    _, (output,) = tensors(compile_graph(graph, NANO, ways=[way]), images[:1])
    assert (output.reshape(-1) == wanted[key][0].reshape(-1).astype(np.float32)).all()


def test_a_tensor_that_changes_meanwhile_does_not_pass() -> None:
    """What is made of a sum is read when the sum has changed."""
    net = Net(1)
    x = conv(net, stem(net, (2, 2), (2, 2), (0,) * 4), (DIM, DIM, (3, 3), 1, (1,) * 4, 1, 1), "a")
    early = net.activation(net.linear(x, DIM, "early"), "early.act")
    x = net.add(x, net.linear(net.activation(net.linear(x, DIM, "b"), "b.act"), DIM, "c"), "sum")
    late = net.linear(net.norm(x, "norm"), DIM, "late")
    result = net.linear(net.add(late, early, "both"), 7, "last")
    graph = quantise(net.model(result), net.images(8), arch=NANO)
    with pytest.raises(ValueError, match="cannot be made in bands"):
        in_bands(graph, Passing(frozenset({"early.act"})))


def same(
    graph: QuantGraph, made: QuantGraph, way: PlacementStrategy, images: np.ndarray
) -> None:
    """A graph, the same in bands and its program have one result, of as many multiplications."""
    wanted, found = (Evaluator(each, NANO).outputs(images) for each in (graph, made))
    (key,) = wanted
    assert (wanted[key] == found[key]).all()
    program = compile_graph(graph, NANO, ways=[way])
    assert program.macs == sum(graph.macs.values())
    _, (output,) = tensors(program, images)
    assert (output.reshape(-1) == wanted[key][0].reshape(-1).astype(np.float32)).all()


def factorised(net: Net, token: bool = False) -> ir.Value:
    """Queries by what keys weigh of the values, and what a convolution makes of the values.

    With a class ``token``, which the result does not read.
    """
    x = net.activation(stem(net, (3, 3), (1, 1), (1, 1, 1, 1)), "act")
    x, rows = net.linear(x, DIM, "stream"), 64

    def padded(value: ir.Value, name: str) -> ir.Value:
        more = 0.0 if name == "pad" else 1.0
        return net.builder.emit(
            "Tokens", value, more * net.normal(1, DIM), more * net.normal(rows + 1, DIM), name=name
        ) if token else value

    def pixels(value: ir.Value, name: str) -> ir.Value:
        index = list(range(1, rows + 1))
        return net.builder.emit("Rows", value, name=name, index=index) if token else value

    x = padded(x, "tokens")
    normal = net.norm(x, "before")
    q, k, v, w = (net.linear(normal, DIM, part) for part in "qkvw")
    weights = net.builder.emit("Softmax", k, name="weights", axis="tokens", groups=1)
    emit = {"heads": 2, "groups": 1, "scale": 1.0}
    kept = net.builder.emit("Product", weights, v, name="kept", layout="tn", **emit)
    found = net.builder.emit("Product", q, kept, name="found", layout="nn", **emit)
    case = (DIM, DIM, (5, 5), 1, (2, 2, 2, 2), 1, DIM)
    near = conv(net, pixels(w, "pixels"), case, "near")
    both = padded(net.builder.emit("Multiply", pixels(q, "own"), near, name="both"), "pad")
    mixed = net.linear(net.add(found, both, "sum"), DIM, "mixed")
    x = net.add(x, mixed, "attended")
    return net.linear(net.pool(net.norm(x, "norm"), "mean", int(token)), 7, "last")


@pytest.mark.parametrize("bands", [3, 5, 8])
def test_a_row_before_a_map_that_no_result_reads(bands: int) -> None:
    """Bands make what others of the same tensor do not."""
    net = Net(5)
    graph = quantise(net.model(factorised(net, True)), net.images(8), arch=NANO)
    graph, images = leave_out(graph), net.images(1)
    assert any(isinstance(op, QLinear) and op.into for op in graph.ops)
    made, way = cut(graph, "q", "own", "pixels", "near", "both", "pad", "found", "sum", bands=bands)
    assert len(made.ops) > len(graph.ops)
    same(graph, made, way, images)


@pytest.mark.parametrize("bands", [2, 4, 8])
@pytest.mark.parametrize("parts", [
    ("q", "w", "near", "both", "found", "sum"), ("q",), ("found",), ("w", "near", "both", "sum"),
])
def test_products_row_by_row(parts: tuple[str, ...], bands: int) -> None:
    """What stands still in a product is there as a whole, and what streams passes."""
    net = Net(5)
    graph, images = quantise(net.model(factorised(net)), net.images(8), arch=NANO), net.images(1)
    assert "kept" not in may_pass(graph)
    made, way = cut(graph, *parts, bands=bands)
    aside = any(isinstance(op, QAside) for op in made.ops)
    # what a band adds to, the next one reads before
    assert aside == ("found" in parts and len(parts) > 1 and bands == 2)
    same(graph, made, way, images)
