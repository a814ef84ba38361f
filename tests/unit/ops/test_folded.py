"""Operations that become part of how others read or are computed."""

import numpy as np
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.errors import UnsupportedOpError


def emit(net: Net, kind: str, x, *parameters, name: str = "tested", **attributes):
    return net.builder.emit(kind, x, *parameters, name=name, **attributes)


def source(net: Net, form: str):
    x = net.block(net.tokens(), "block")
    return {
        "stream": lambda: x, "normalised": lambda: net.norm(x, "norm"),
        "linear": lambda: net.linear(net.norm(x, "norm"), DIM, "fc"),
        "activated": lambda: net.activation(net.linear(x, DIM, "fc"), "act", "relu"),
        "attended": lambda: net.attention(net.norm(x, "norm"), "again"),
    }[form]()


FORMS = ("stream", "normalised", "linear", "activated", "attended")


@pytest.mark.parametrize(("form", "shape"), [
    *((form, (1, DIM)) for form in FORMS), ("linear", (1, 1)),
])
def test_scales_and_shifts(form, shape):
    net = Net(5)
    y = emit(net, "Affine", source(net, form), net.normal(*shape), net.normal(*shape))
    check(net, net.linear(y, 7, "last"))


def test_a_scaled_branch_is_added():
    net = Net(5)
    x = net.tokens()
    branch = net.linear(net.attention(net.norm(x, "norm"), "attention"), DIM, "proj")
    scale = emit(net, "Affine", branch, net.normal(1, DIM), np.zeros((1, 1), np.float32))
    check(net, net.head(net.select(net.add(x, scale, "sum"))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("index", [[3, 2, 1, 0], [5, -1, 5, 7, -1]])
def test_channels(form, index):
    net = Net(5)
    check(net, net.linear(emit(net, "Channels", source(net, form), index=index), 7, "last"))


def test_scales_of_tokens_are_refused():
    net = Net(5)
    y = emit(net, "Affine", source(net, "linear"), net.normal(5, 1), np.zeros((1, 1), np.float32))
    with pytest.raises(UnsupportedOpError, match="its scale differs from token to token"):
        check(net, y)
