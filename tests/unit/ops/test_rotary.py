"""Rotary position embedding, from the canonical graph to the golden machine."""

import numpy as np
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, HEADS, Net
from vitrify.ir import shape_of

#: Partners of each channel: of the pair, or half a head away.
PARTNERS = {
    "pairs": np.arange(DIM) ^ 1,
    "halves": np.arange(DIM) ^ (DIM // HEADS // 2),
    "rotation": np.roll(np.arange(DIM), 1),
}


def rotary(net: Net, x, name: str, partner: np.ndarray, prefix: int = 1):
    rows = int(shape_of(x)[1])
    angle = net.rng.uniform(-3, 3, (rows, DIM)).astype(np.float32)
    angle[:prefix] = 0
    sign = np.where(np.arange(DIM) < partner, -1, 1).astype(np.float32)
    return net.builder.emit(
        "Rotary", x, np.cos(angle), sign * np.sin(angle), name=name,
        partner=[int(i) for i in partner],
    )


def attention(net: Net, partner: np.ndarray):
    x = net.tokens()
    normal = net.norm(x, "norm")
    q, k, v = (net.linear(normal, DIM, name) for name in "qkv")
    q, k = rotary(net, q, "turned.q", partner), rotary(net, k, "turned.k", partner)
    attended = net.builder.emit("Attention", q, k, v, name="attention", heads=HEADS, scale=0.35)
    return net.head(net.add(x, net.linear(attended, DIM, "proj"), "add"))


def of_a_stream(net: Net):
    x = rotary(net, net.block(net.tokens(), "block"), "turned", PARTNERS["pairs"], 0)
    return net.head(net.norm(net.add(x, net.linear(x, DIM, "fc"), "add"), "normed"))


def the_result(net: Net):
    return rotary(net, net.norm(net.tokens(), "norm"), "turned", PARTNERS["halves"])


def twice(net: Net):
    x = rotary(net, net.linear(net.tokens(), DIM, "fc"), "first", PARTNERS["pairs"])
    return net.head(rotary(net, x, "second", PARTNERS["halves"]))


GRAPHS = {
    **{name: lambda net, p=partner: attention(net, p) for name, partner in PARTNERS.items()},
    **{f.__name__: f for f in (of_a_stream, the_result, twice)},
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("batch", [1, 2])
def test_golden_equals_the_evaluator(name, batch):
    net = Net(3)
    check(net, GRAPHS[name](net), batch=batch)
