"""Products of two tensors, from the canonical graph to the golden machine."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.ops.checks import NANO, check
from tests.unit.quant.graphs import DIM, HIDDEN, Net
from vitrify.arch.errors import CapacityError
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.golden.ops import layernorm
from vitrify.quant.scheme import product_scale


def times(net: Net, x, y, name):
    return net.builder.emit("Multiply", x, y, name=name)


def gated(net: Net, x, name: str, kind: str = "silu", width: int = HIDDEN):
    """SwiGLU, GEGLU …: a gate behind an activation times a linear map."""
    normal = net.norm(x, f"{name}.norm")
    gate = net.activation(net.linear(normal, width, f"{name}.gate"), f"{name}.act", kind)
    both = times(net, gate, net.linear(normal, width, f"{name}.up"), f"{name}.times")
    return net.add(x, net.linear(both, DIM, f"{name}.down"), f"{name}.add")


def swiglu(net: Net):
    return net.head(gated(net, gated(net, net.tokens(), "one"), "two", "gelu"))


def odd_width(net: Net):
    return net.head(gated(net, net.tokens(), "one", width=19))


def square_of_a_stream(net: Net):
    x = net.block(net.tokens(), "block")
    return net.head(times(net, x, x, "square"))


def one_factor_twice(net: Net):
    x = net.tokens()
    a, b, c = (net.activation(net.linear(x, HIDDEN, n), f"{n}.act", "tanh") for n in "abc")
    first = net.linear(times(net, a, b, "ab"), DIM, "first")
    second = net.linear(times(net, c, a, "ca"), DIM, "second")
    third = net.linear(a, DIM, "third")
    return net.head(net.add(net.add(first, second, "sum1"), third, "sum2"))


def stream_and_rows(net: Net):
    x = net.block(net.tokens(), "block")
    both = times(net, net.linear(x, DIM, "left"), net.norm(x, "right"), "times")
    y = net.norm(net.add(both, x, "add"), "normed")
    return net.head(net.select(times(net, y, both, "again"), index=2))


def the_result(net: Net):
    x = net.norm(net.tokens(), "norm")
    return times(net, net.linear(x, DIM, "left"), net.linear(x, DIM, "right"), "times")


def squeeze_and_excite(net: Net):
    """One row of weights for all rows, behind an activation or not."""
    x = net.linear(net.norm(net.tokens(), "norm"), DIM, "fc")
    row = net.builder.emit("Rows", x, name="row", index=[2])
    narrow = net.activation(net.linear(row, 8, "squeeze"), "act", "relu")
    weights = net.activation(net.linear(narrow, DIM, "excite"), "gate", "sigmoid")
    both = times(net, x, weights, "times")
    return net.head(times(net, net.linear(both, DIM, "next"), net.linear(row, DIM, "r"), "last"))


def attended(net: Net):
    x = net.norm(net.tokens(), "norm")
    return net.head(times(net, net.attention(x, "attention"), x, "times"))


def weighed_heads(net: Net):
    """A weight for every head of a token, and one for a whole token."""
    x = net.norm(net.tokens(), "norm")
    gate = net.activation(net.linear(x, 4, "gates"), "gate", "sigmoid")
    y = times(net, net.attention(x, "attention"), gate, "heads")
    return net.head(times(net, y, net.linear(x, 1, "weight"), "whole"))


GRAPHS = {
    f.__name__: f for f in (
        swiglu, odd_width, square_of_a_stream, one_factor_twice, stream_and_rows, the_result,
        attended, squeeze_and_excite, weighed_heads,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(name, batch):
    net = Net(3)
    check(net, GRAPHS[name](net), batch=batch)


def test_an_architecture_without_products_says_so():
    net = Net(3)
    graph = quantise(net.model(swiglu(net)), net.images(4), arch=NANO)
    with pytest.raises(CapacityError, match=r"'one\.down'.*without 'products'"):
        compile_graph(graph, replace(NANO, products=False))


def test_a_product_of_bytes_is_scaled_with_the_least_error():
    rng = np.random.default_rng(0)
    low, high = rng.integers(-127, 128, (2, 400, 16))
    shift, mantissa = product_scale(low * high, np.ones(16))
    got = layernorm.product(low, high, shift, mantissa) * 2.0 ** (8 + shift) / mantissa
    assert 10 * np.log10(np.mean((low * high) ** 2.0) / np.mean((got - low * high) ** 2)) > 35
