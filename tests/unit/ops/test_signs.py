"""Products of activations times negative numbers: multipliers of the core have no sign."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.ops.checks import check
from tests.unit.quant.graphs import DIM, HEADS, Net
from vitrify.ir import shape_of

_OPTIONS = {"heads": HEADS, "groups": 1}


def projected(net: Net) -> list[ir.Value]:
    x = net.norm(net.tokens(0), "norm")
    return [net.linear(x, DIM, f"attention.{part}") for part in "qkv"]


def attention(net: Net) -> ir.Value:
    return net.builder.emit("Attention", *projected(net), name="mix", heads=HEADS, scale=-0.4)


def cross_attention(net: Net, kind: str = "softmax") -> ir.Value:
    bias = np.zeros((1, 1, 1, 1), np.float32)
    return net.builder.emit(
        "CrossAttention", *projected(net), bias, name="mix", scale=-0.4, kind=kind, **_OPTIONS
    )


def scores(net: Net, q: ir.Value, k: ir.Value, scale: float = -0.4) -> ir.Value:
    return net.builder.emit("Product", q, k, name="scores", layout="nt", scale=scale, **_OPTIONS)


def times(net: Net, x: ir.Value, *factors: float) -> ir.Value:
    """Scores times a number for each head."""
    scale = np.repeat(np.array([factors], np.float32), int(shape_of(x)[-1]) // len(factors), axis=1)
    return net.builder.emit("Affine", x, scale, np.zeros((1, 1), np.float32), name="turned")


def affine(net: Net, *factors: float) -> ir.Value:
    return times(net, scores(net, *projected(net)[:2], 0.4), *factors)


def weighed(net: Net) -> ir.Value:
    """Values weighed by a function of negated scores."""
    q, k, v = projected(net)
    weights = net.activation(times(net, scores(net, q, k, 0.4), -1.5), "weights", "sigmoid")
    return net.builder.emit(
        "Product", weights, v, name="mix", layout="nn", scale=1.0, **_OPTIONS
    )


CASES = {
    "attention": attention, "cross attention": cross_attention,
    "product": lambda net: scores(net, *projected(net)[:2]),
    "a function in attention": lambda net: cross_attention(net, "relu"),
    "behind a product": lambda net: affine(net, -2.0),
    "one head of two": lambda net: affine(net, 0.5, -2.0),
    "a head times zero": lambda net: affine(net, 0.5, 0.0),
    "a function of it weighs": weighed,
}


@pytest.mark.parametrize("name", CASES)
def test_negative_scale(name: str) -> None:
    net = Net(5)
    check(net, net.linear(CASES[name](net), 7, "last"), least=25)
