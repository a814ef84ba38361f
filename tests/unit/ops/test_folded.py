"""Operations that become part of how others read or are computed."""

import numpy as np
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, Net
from vitrify.arch.isa import Opcode
from vitrify.ops.linear import decompose


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


@pytest.mark.parametrize("form", ["stream", "linear", "activated"])
@pytest.mark.parametrize(("scale", "shift"), [
    ((5, 1), (1, 1)), ((1, 1), (5, DIM)), ((5, DIM), (5, 1)),
])
def test_scales_and_shifts_of_tokens(form, scale, shift):
    net = Net(5)
    y = emit(net, "Affine", source(net, form), 1 + net.normal(*scale), net.normal(*shift))
    check(net, net.linear(net.add(y, net.linear(y, DIM, "more"), "sum"), 7, "last"), batch=2)


@pytest.mark.parametrize("form", ["stream", "normalised", "attended"])
def test_scales_and_shifts_are_part_of_the_layer_behind(form):
    net = Net(5)
    y = emit(net, "Affine", source(net, form), net.normal(1, DIM), net.normal(1, DIM))
    program = check(net, net.add(net.linear(y, 7, "one"), net.linear(y, 7, "two"), "sum"))
    assert not [layer.name for layer in program.layers if "copy" in layer.name]


def test_positions_scaled_from_a_patch_embedding():
    net = Net(5)
    y = emit(net, "Affine", net.patches(), net.normal(1, 1), net.normal(4, DIM))
    check(net, net.head(net.norm(net.block(y, "block"), "norm")))


@pytest.mark.parametrize("kind", ["Affine", "Channels"])
def test_a_chosen_token(kind):
    net = Net(5)
    token = net.select(source(net, "stream"), index=3)
    token = net.builder.emit("Unfold", token, name="row", parts=1)
    y = {
        "Affine": lambda: emit(net, kind, token, net.normal(1, DIM), net.normal(1, DIM)),
        "Channels": lambda: emit(net, kind, token, index=[2, 1, 5]),
    }[kind]()
    check(net, net.linear(y, 7, "last"))


@pytest.mark.parametrize("form", FORMS)
def test_the_larger_of_two(form):
    net = Net(5)
    x = source(net, form)
    y = emit(net, "Maximum", x, net.linear(x, DIM, "other"))
    check(net, net.linear(y, 7, "last"), batch=2)


@pytest.mark.parametrize("form", ["activated", "normalised"])
def test_sums_over_more_than_the_accumulators_hold(form, monkeypatch):
    """Layers and convolutions are split, as if the accumulators were small."""
    monkeypatch.setattr(decompose, "MAX_DEPTH", 60)
    net = Net(5)
    x = source(net, form)
    x = emit(net, "Rows", net.linear(x, 64, "wide"), index=[0, 1, 2, 3], name="map")
    y = emit(
        net, "Conv", x, net.normal(DIM, 64, 2, 2) / 16, net.normal(DIM), map=[2, 2],
        strides=[1, 1], pads=[0, 0, 1, 1], dilations=[1, 1], groups=1, name="conv",
    )
    y = net.add(y, net.linear(x, DIM, "deep"), "sum")
    program = check(net, net.linear(net.activation(y, "nonlinear"), 7, "last"), batch=2)
    depths = {op.k_tiles for op in program.instructions() if op.opcode is Opcode.MATMUL}
    assert max(depths) <= 8
