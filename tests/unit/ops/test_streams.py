"""Graphs that are no chain: streams that fork and join, and are read long after."""

import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import CLASSES, DIM, Net
from vitrify.arch.errors import ModelError


def skip_over_a_block(net: Net):
    """The old stream plus something of the new one."""
    x = net.tokens()
    y = net.block(x, "block")
    return net.add(x, net.linear(y, DIM, "top"), "late")


def streams_joined(net: Net):
    x = net.tokens()
    y, z = net.pool(net.norm(x, "a"), "p"), net.pool(net.norm(x, "b"), "q")
    return net.head(net.add(y, z, "both"))


def joined_with_its_past(net: Net):
    """A U-Net's skip."""
    x = net.tokens()
    return net.head(net.add(net.block(x, "block"), x, "both"))


def forked(net: Net):
    x = net.block(net.tokens(), "block")
    branches = [net.block(x, f"branch{i}") for i in range(3)]
    return net.head(net.add(net.add(*branches[:2], "two"), branches[2], "three"))


def read_late(net: Net):
    """A LayerNorm of the old stream meets what was made of the new one."""
    x = net.tokens()
    old = net.linear(net.norm(x, "old"), DIM, "reader")
    y = net.block(x, "block")
    return net.head(net.add(net.linear(net.norm(y, "new"), DIM, "other"), old, "sum"))


def depends_on_both(net: Net):
    """An MLP whose result is added to its own past, twice."""
    x = net.tokens()
    for i in range(2):
        x = net.add(net.block(x, f"block{i}"), net.norm(x, f"norm{i}"), f"add{i}")
    return net.head(x)


def class_token_alone(net: Net):
    """CaiT's class attention adds to the class token only."""
    x = net.block(net.tokens(), "block")
    cls = net.select(x)
    for i in range(2):
        hidden = net.activation(net.linear(net.norm(cls, f"n{i}"), 24, f"fc{i}"), f"act{i}")
        cls = net.add(cls, net.linear(hidden, DIM, f"out{i}"), f"sum{i}")
    return net.head(cls)


GRAPHS = {
    f.__name__: f for f in (
        skip_over_a_block, streams_joined, joined_with_its_past, forked, read_late,
        depends_on_both, class_token_alone,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(name, batch):
    net = Net(2)
    check(net, GRAPHS[name](net), batch=batch)


def test_every_stage_is_an_output():
    net = Net(2)
    x = net.tokens()
    taps = [x, net.block(x, "one")]
    taps.append(net.block(taps[-1], "two"))
    check(net, *taps, net.head(net.select(taps[-1])))


def test_an_early_and_a_late_head():
    net = Net(2)
    x = net.block(net.tokens(), "one")
    early = net.linear(net.select(net.norm(x, "early"), "chosen"), CLASSES, "first")
    check(net, early, net.head(net.select(net.block(x, "two"))))


def test_patches_and_tokens_of_them_are_outputs():
    net = Net(2)
    tokens = net.tokens(prefix=0)
    patches = tokens.producer().inputs[0]
    check(net, patches, net.head(net.select(tokens)))


def test_patches_behind_a_token_and_as_they_are():
    net = Net(2)
    tokens = net.tokens(prefix=1)
    patches = tokens.producer().inputs[0]
    with pytest.raises(ModelError, match="behind tokens of their own"):
        check(net, patches, net.head(net.select(tokens)))


@pytest.mark.parametrize("kind", ["Mix", "Pool", "Attention"])
def test_nodes_called_like_an_operation_of_the_compiler(kind):
    """The copy that makes bytes of a normalised stream has the name that the node has, too."""
    net = Net(2)
    x = net.norm(net.tokens(prefix=0), "norm")
    made = {
        "Mix": lambda name: net.builder.emit(
            kind, x, net.normal(1, 4, 4), net.normal(4), name=name, heads=1, groups=1
        ),
        "Pool": lambda name: net.builder.emit(
            kind, x, name=name, kind="max", map=[2, 2], kernel=[2, 2], strides=[1, 1],
            pads=[1, 1, 0, 0], count_include_pad=0,
        ),
        "Attention": lambda name: net.attention(net.add(x, x, "twice"), name),
    }[kind]("norm.copy")
    check(net, net.linear(net.norm(made, "after"), CLASSES, "last"))
