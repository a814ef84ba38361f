"""Constant matrices over tokens, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.support.execute import tensors
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.presets import preset
from vitrify.codegen.placement import Spread
from vitrify.codegen.strategy import PlacementStrategy
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.ir import shape_of
from vitrify.quant.compare import compare
from vitrify.quant.evaluate import Evaluator

NANO = preset("nano")
#: Heads, groups of rows, rows that each group becomes.
CASES = {
    "one matrix": (1, 1, 5), "heads": (4, 1, 5), "two heads": (2, 1, 3), "groups": (1, 2, 2),
    "heads and groups": (2, 2, 3), "more rows": (1, 1, 70), "one row": (1, 1, 1),
}


def mixed(
    net: Net, heads: int, groups: int, rows: int, normed: bool = False, bias: float = 0.5
):
    x = net.block(net.tokens(0), "block")
    count = int(shape_of(x)[1]) // groups
    matrix = net.normal(heads, rows, count) / np.sqrt(count)
    y = net.builder.emit(
        "Mix", net.norm(x, "before"), matrix, bias * net.normal(rows), name="mix", heads=heads,
        groups=groups,
    )
    return net.linear(net.norm(y, "after") if normed else y, 7, "last")


def check(net: Net, result, arch=NANO, batch=1, heads=1):
    model, images = net.model(result), net.images(24)
    graph = quantise(model, images, arch=arch)
    assert min(one.sqnr for one in compare(model, graph, images[:8], arch)) > 25
    program = compile_graph(graph, arch, batch=batch)
    written, (got,) = tensors(program, images[:batch])
    expected = Evaluator(graph, arch).run(images[:batch])["mix"].reshape(-1, DIM)
    where = np.flatnonzero(Spread(DIM, heads, arch.depth).scatter(np.ones(DIM)))
    assert (written["mix"][: len(expected), where] == expected).all()
    (real,) = Evaluator(graph, arch).outputs(images[:batch]).values()
    assert (got.reshape(real.shape) == real.astype(np.float32)).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(case, batch):
    net = Net(3)
    check(net, mixed(net, *CASES[case]), batch=batch, heads=CASES[case][0])


@pytest.mark.parametrize("bias", [0.5, 0])
def test_rows_that_are_normalised(bias):
    net = Net(4)
    check(net, mixed(net, 1, 1, 6, normed=True, bias=bias))


def test_without_a_bias_nothing_is_there_before():
    net = Net(4)
    graph = quantise(net.model(mixed(net, 2, 2, 3, bias=0)), net.images(4), arch=NANO)
    assert all(constant.out != "mix" for constant in graph.constants)
    net = Net(4)
    check(net, mixed(net, 2, 2, 3, bias=0), batch=2, heads=2)


def test_heads_that_are_normalised():
    net = Net(4)
    check(net, mixed(net, 2, 1, 6, normed=True), heads=2)


def test_another_core():
    net = Net(5)
    check(net, mixed(net, 1, 1, 5), preset("reference"))


def test_what_others_use_in_another_number_of_heads_is_copied():
    net = Net(6)
    x = net.activation(net.linear(net.tokens(0), DIM, "fc"), "act")
    count = int(shape_of(x)[1])
    attended = net.builder.emit("Attention", x, x, x, name="attention", heads=2, scale=0.3)
    ys = [
        net.builder.emit(
            "Mix", x, net.normal(heads, count, count) / 2, net.normal(count), name=name,
            heads=heads, groups=1,
        )
        for name, heads in (("mix", 4), ("other", 1))
    ]
    parts = [net.linear(y, 7, f"last{i}") for i, y in enumerate((attended, *ys))]
    check(net, net.add(net.add(parts[0], parts[1], "sum0"), parts[2], "sum"), heads=4)


def test_biases_come_when_they_are_needed():
    def peak(layers: int) -> int:
        net = Net(7)
        x = net.norm(net.tokens(0), "start")
        count = int(shape_of(x)[1])
        for i in range(layers):
            x = net.builder.emit(
                "Mix", x, net.normal(1, count, count) / 2, net.normal(count), name=f"mix{i}",
                heads=1, groups=1,
            )
        model = net.model(net.linear(x, 7, "last"))
        graph = quantise(model, net.images(4), arch=NANO)
        plain = PlacementStrategy()  # others fill what is left of the memory
        return compile_graph(graph, NANO, ways=[plain]).metadata["token_memory_bytes"]

    assert peak(9) == peak(3)


def test_heads_are_an_output():
    """Heads begin at a word each; what is stored has its channels one behind the other."""
    net = Net(7)
    x = net.norm(net.block(net.tokens(0), "block"), "before")
    count = int(shape_of(x)[1])
    y = net.builder.emit(
        "Mix", x, net.normal(4, 3, count) / 2, net.normal(3), name="mix", heads=4, groups=1
    )
    check(net, y, heads=4)
