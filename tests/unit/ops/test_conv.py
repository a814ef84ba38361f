"""Convolutions of maps, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import Net
from vitrify.arch.errors import UnsupportedOpError
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import shape_of

#: Channels in, channels out, kernel, strides, pads (top, left, bottom, right), dilations, groups.
CASES = {
    "padded": (16, 12, (3, 3), 1, (1, 1, 1, 1), 1, 1),
    "strides": (16, 16, (3, 3), 2, (1, 1, 1, 1), 1, 1),
    "patches": (8, 20, (2, 2), 2, (0, 0, 0, 0), 1, 1),
    "uneven pads": (10, 5, (3, 2), 1, (0, 1, 2, 0), 1, 1),
    "one tap": (16, 9, (1, 1), 2, (0, 0, 0, 0), 1, 1),
    "dilated": (8, 8, (2, 2), 1, (1, 1, 1, 1), 2, 1),
    "depthwise": (20, 20, (3, 3), 1, (1, 1, 1, 1), 1, 20),
    "depthwise, strides": (16, 16, (3, 3), 2, (1, 1, 1, 1), 1, 16),
    "multiplied": (8, 16, (3, 3), 1, (1, 1, 1, 1), 1, 8),
    "grouped": (24, 12, (2, 2), 1, (0, 0, 0, 0), 1, 3),
}


def image_map(net: Net, channels: int, size: int):
    """A map of half the size of the image."""
    weight = net.normal(channels, 3, 2, 2) / np.sqrt(12)
    assert size == 4
    return net.builder.emit(
        "ImageConv", net.image, weight, net.normal(channels), name="stem", strides=[2, 2],
        pads=[0] * 4,
    )


def conv(net: Net, x, case, name="conv", maps=1):
    inner, out, kernel, stride, pads, dilation, groups = case
    count = int(shape_of(x)[1]) // maps
    size = int(np.sqrt(count))
    weight = net.normal(out, inner // groups, *kernel)
    weight /= np.sqrt(weight[0].size)
    return net.builder.emit(
        "Conv", x, weight, 0.5 * net.normal(out), name=name, map=[size, size],
        strides=[stride] * 2, pads=list(pads), dilations=[dilation] * 2, groups=groups,
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(case, batch):
    net = Net(2)
    x = image_map(net, CASES[case][0], 4)
    check(net, net.linear(conv(net, x, CASES[case]), 7, "last"), batch=batch, least=25)


@pytest.mark.parametrize("case", ["padded", "depthwise"])
def test_several_maps(case):
    net = Net(2)
    x = conv(net, image_map(net, CASES[case][0], 4), CASES[case], maps=4)
    check(net, net.linear(x, 7, "last"), batch=2, least=25)


@pytest.mark.parametrize("blocks", [2, 4])
@pytest.mark.parametrize("case", ["depthwise", "depthwise, strides", "uneven pads"])
def test_hidden_map_passes_in_blocks_of_lines(case, blocks):
    """Behind a layer; lines that two blocks read are made twice and counted once."""
    net = Net(2)
    hidden = net.activation(net.linear(image_map(net, 8, 4), CASES[case][0], "wide"), "act")
    made = net.linear(conv(net, hidden, CASES[case]), 7, "last")
    model, images = net.model(made), net.images(24)
    graph = quantise(model, images, arch=NANO)
    whole, parts = (
        compile_graph(graph, NANO, batch=2, ways=[PlacementStrategy(row_blocks=count)])
        for count in (1, blocks)
    )
    sizes = [program.metadata["token_memory_bytes"] for program in (whole, parts)]
    # other cases have their peak elsewhere
    assert sizes[1] < sizes[0] or not case.startswith("depthwise")
    assert parts.macs == whole.macs
    assert parts.instruction_count != whole.instruction_count
    exact, found = (tensors(program, images[:2])[1] for program in (whole, parts))
    assert (exact[0] == found[0]).all()


def inverted_bottleneck(net: Net):
    """Widened, convolved and narrowed, added to a copy that is made first where memory is short."""
    x = net.activation(image_map(net, 16, 4), "act0")
    hidden = net.activation(net.linear(x, 24, "wide"), "act1")
    case = (24, 24, (3, 3), 1, (1, 1, 1, 1), 1, 24)
    mapped = net.activation(conv(net, hidden, case), "act2")
    x = net.add(x, net.linear(mapped, 16, "narrow"), "sum")
    return net.linear(net.norm(x, "after"), 7, "last")


def both_ways(network, batch, way):
    """Programs of a network as usual and in another ``way``, which give the same integers."""
    net = Net(2)
    graph = quantise(net.model(network(net)), net.images(24), arch=NANO)
    images = net.images(batch)
    programs = [
        compile_graph(graph, NANO, batch=batch, ways=[each])
        for each in (PlacementStrategy(), way)
    ]
    exact, found = (tensors(program, images)[1] for program in programs)
    assert (exact[0] == found[0]).all()
    return programs


@pytest.mark.parametrize("batch", [1, 2])
def test_three_layers_pass_in_blocks_of_lines(batch):
    """Lines that two blocks read are made twice and counted once."""
    whole, parts = both_ways(
        inverted_bottleneck, batch, PlacementStrategy(row_blocks=2, late=True)
    )
    names = [layer.tensor.name for layer in parts.layers]
    assert {"act1.block", "act2.block"} <= set(names), names
    assert not {"act1", "act2"} & set(names)
    assert parts.macs == whole.macs


def mixed_hidden(net: Net):
    """Between the layers of an MLP that is added to its stream, a depthwise convolution."""
    x = net.linear(net.activation(image_map(net, 16, 4), "act0"), 16, "stream")
    hidden = net.linear(net.norm(x, "before"), 24, "wide")
    case = (24, 24, (3, 3), 1, (1, 1, 1, 1), 1, 24)
    mapped = net.activation(conv(net, hidden, case), "act2")
    x = net.add(x, net.linear(mapped, 16, "narrow"), "sum")
    return net.linear(net.norm(x, "after"), 7, "last")


@pytest.mark.parametrize("batch", [1, 2])
def test_sums_do_not_go_where_the_next_block_still_reads(batch):
    """Lines that two blocks read are made twice, of values that are still there."""
    _, parts = both_ways(mixed_hidden, batch, PlacementStrategy(row_blocks=2))
    assert "wide.block" in {layer.tensor.name for layer in parts.layers}


def pooled_attention(net: Net):
    """Queries, keys and values in wide rows, pooled before they attend."""
    x = net.norm(image_map(net, 16, 4), "norm")
    pool = (64, 64, (2, 2), 2, (0, 0, 0, 0), 1, 64)
    parts = [conv(net, net.linear(x, 64, name), pool, f"pool_{name}") for name in "qkv"]
    made = net.builder.emit("Attention", *parts, name="attention", heads=4, scale=0.25)
    return net.linear(made, 7, "last")


@pytest.mark.parametrize("batch", [1, 2])
def test_wide_layers_are_pooled_before_the_next_one_is_made(batch):
    plain, early = both_ways(pooled_attention, batch, PlacementStrategy(early=True))
    names = [layer.name.partition("[")[0] for layer in early.layers]
    order = sorted({*"qkv", *(f"pool_{name}" for name in "qkv")}, key=names.index)
    assert [name[-1] for name in order[::2]] == [name[-1] for name in order[1::2]]
    memory = [program.metadata["token_memory_bytes"] for program in (plain, early)]
    assert memory[1] < memory[0]


def test_in_a_network():
    """Behind an activation, in front of one, added to a stream, behind a normalisation."""
    net = Net(4)
    x = conv(net, net.activation(image_map(net, 16, 4), "act0"), (
        16, 16, (3, 3), 1, (1, 1, 1, 1), 1, 1), "first")
    hidden = net.activation(conv(net, net.norm(x, "norm"), (
        16, 16, (3, 3), 1, (1, 1, 1, 1), 1, 16), "depthwise"), "act")
    x = net.add(x, net.linear(hidden, 16, "fc"), "add")
    x = net.add(x, conv(net, x, (16, 16, (3, 3), 1, (1, 1, 1, 1), 1, 1), "second"), "sum")
    check(net, net.linear(net.norm(x, "after"), 7, "last"))


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_rows_side_by_side(rows):
    net = Net(4)
    x = net.builder.emit("Fold", image_map(net, 4, 4), name="fold", rows=rows)
    check(net, net.linear(x, 7, "last"), batch=2, least=25)


def test_what_several_read_is_computed_once():
    net = Net(4)
    x = conv(net, image_map(net, 8, 4), (8, 16, (3, 3), 1, (1, 1, 1, 1), 1, 1), "once")
    x = net.add(x, net.linear(x, 16, "fc"), "add")
    program = check(net, net.linear(x, 7, "last"), least=25)
    made = {layer.name for layer in program.layers if layer.macs}
    assert {name for name in made if name.startswith("once")} == {"once"}


def test_what_the_core_cannot_do():
    net = Net(2)
    x = conv(net, image_map(net, 8, 4), (8, 8, (9, 9), 1, (4, 4, 4, 4), 1, 8))
    with pytest.raises(UnsupportedOpError, match="a kernel of 9x9 pixels with stride 1 is larger"):
        check(net, net.linear(x, 7, "last"))
