"""Normalisations, from the canonical graph to the golden machine."""

from dataclasses import replace

import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, HIDDEN, Net
from vitrify.arch.errors import CapacityError, UnsupportedOpError
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise


def rms(net: Net, x, name: str, epsilon: float = 1e-5, axis: str = "channels", groups: int = 1):
    return net.builder.emit(
        "RMSNorm", x, 1 + 0.3 * net.normal(DIM), name=name, epsilon=epsilon, axis=axis,
        groups=groups,
    )


def in_every_block(net: Net):
    """The stream keeps a mean that an RMSNorm must not take off."""
    x = net.tokens()
    for i in range(2):
        x = net.add(x, net.linear(net.attention(rms(net, x, f"a{i}"), f"b{i}"), DIM, f"c{i}"),
                    f"d{i}")
        hidden = net.activation(net.linear(rms(net, x, f"e{i}"), HIDDEN, f"f{i}"), f"g{i}")
        x = net.add(x, net.linear(hidden, DIM, f"h{i}"), f"i{i}")
    return net.head(net.select(rms(net, x, "last")))


def large_epsilon(net: Net):
    return net.head(rms(net, net.block(net.tokens(), "block"), "last", epsilon=0.5))


def the_result(net: Net):
    return rms(net, net.norm(net.tokens(), "norm"), "rms")


GRAPHS = {f.__name__: f for f in (in_every_block, large_epsilon, the_result)}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(name, batch):
    net = Net(3)
    check(net, GRAPHS[name](net), batch=batch)


def test_rows_are_normalised_in_one_way():
    net = Net(3)
    x = net.tokens()
    one = net.linear(net.norm(x, "layer"), DIM, "one")
    two = net.linear(rms(net, x, "rms"), DIM, "two")
    with pytest.raises(UnsupportedOpError, match=r"'rms'.*in another way"):
        quantise(net.model(net.head(net.add(one, two, "sum"))), net.images(4), arch=NANO)


def test_groups_of_channels_are_refused():
    net = Net(3)
    model = net.model(net.head(rms(net, net.tokens(), "heads", groups=2)))
    with pytest.raises(UnsupportedOpError, match=r"'heads'.*2 groups of channels"):
        quantise(model, net.images(4), arch=NANO)


def test_an_architecture_without_row_sums_says_so():
    net = Net(3)
    graph = quantise(net.model(in_every_block(net)), net.images(4), arch=NANO)
    with pytest.raises(CapacityError, match=r"RMSNorm.*without 'row_sums'"):
        compile_graph(graph, replace(NANO, row_sums=False))
