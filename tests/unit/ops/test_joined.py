"""Tensors behind each other and side by side, and constant rows."""

import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, Net


def parts(net: Net):
    x = net.block(net.tokens(0), "block")
    return net.linear(x, DIM, "one"), net.activation(net.linear(x, DIM, "two"), "act")


def finished(net: Net, x):
    y = net.add(x, net.linear(net.norm(x, "norm"), DIM, "fc"), "add")
    return net.linear(net.norm(y, "after"), 7, "last")


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_rows_behind_each_other(batch, order):
    net = Net(3)
    x = net.builder.emit("ConcatRows", *parts(net)[::order], name="join")
    check(net, finished(net, x), batch=batch)


@pytest.mark.parametrize("sizes", [(5, 11), (16, 16)])
def test_channels_side_by_side(sizes):
    net = Net(3)
    x = net.block(net.tokens(0), "block")
    halves = [net.linear(x, size, f"half{i}") for i, size in enumerate(sizes)]
    x = net.builder.emit("ConcatChannels", *halves, name="join")
    check(net, net.linear(net.linear(x, DIM, "fc"), 7, "last"), batch=2)


@pytest.mark.parametrize("batch", [1, 2])
def test_constant_rows_in_front(batch):
    net = Net(3)
    one, _ = parts(net)
    fixed = net.builder.emit("ConstantRows", one, net.normal(2, DIM), name="fixed")
    x = net.builder.emit("ConcatRows", fixed, one, name="join")
    check(net, finished(net, x), batch=batch)


@pytest.mark.parametrize("prefix", [0, 2])
def test_positions_behind_another_layer(prefix):
    net = Net(3)
    one, _ = parts(net)
    x = net.builder.emit(
        "Tokens", one, net.normal(prefix, DIM), net.normal(prefix + 4, DIM), name="positions"
    )
    check(net, finished(net, x), batch=2)


def test_rows_that_are_added_are_joined_once():
    """Both ways to ask for them, as what is added and as what is added to, find the same."""
    net = Net(3)
    x = net.block(net.tokens(0), "block")
    cut = [net.builder.emit("Rows", x, name=f"rows{i}", index=i) for i in ([0, 1], [2, 3])]
    joined = net.builder.emit(
        "ConcatRows", *(net.linear(part, DIM, f"fc{i}") for i, part in enumerate(cut)), name="join"
    )
    check(net, net.linear(net.norm(net.add(x, joined, "sum"), "after"), 7, "last"))
