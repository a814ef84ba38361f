"""Activation functions are recognised by what they compute, however they are spelled."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from agree import assert_agrees
from tiny import picture, tiny

from vitrify.ir import UNARY, attributes_of

ACTIVATIONS = {
    "gelu": "active = Gelu(up)",
    "gelu_tanh": 'active = Gelu <approximate = "tanh"> (up)',
    "quick_gelu": "active = com.microsoft.QuickGelu <alpha = 1.702> (up)",
    "silu": "s = Sigmoid(up)  active = Mul(up, s)",
    "relu": "active = Relu(up)",
    "relu6": "lo = Constant <value_float = 0.0> ()  hi = Constant <value_float = 6.0> ()\n"
    "active = Clip(up, lo, hi)",
    "relu_squared": "r = Relu(up)  active = Pow(r, two)",
    "tanh": "active = Tanh(up)",
    "sigmoid": "active = Sigmoid(up)",
    "hard_swish": "active = HardSwish(up)",
    "hard_sigmoid": "active = HardSigmoid <alpha = 0.16666667> (up)",
    "elu": "active = Elu(up)",
    "leaky_relu": "active = LeakyRelu(up)",
    "mish": "active = Mish(up)",
    "softplus": "active = Softplus(up)",
}
OTHER_ACTIVATIONS = {
    "gelu, half first": (
        "gelu",
        "s = Div(up, root)  e = Erf(s)  f = Add(one, e)  h = Mul(half, up)  active = Mul(h, f)",
    ),
    "gelu without its half": (
        "gelu", "s = Div(up, root)  e = Erf(s)  f = Add(e, one)  active = Mul(up, f)"
    ),
    "BiasGelu": ("gelu", "active = com.microsoft.BiasGelu(um, fc1.bias)"),
    "FastGelu": ("gelu_tanh", "active = com.microsoft.FastGelu(um, fc1.bias)"),
    "tanh chain by Pow": (
        "gelu_tanh",
        """
        three = Constant <value_float = 3.0> ()  c = Constant <value_float = 0.044715> ()
        r = Constant <value_float = 0.7978846> ()
        p = Pow(up, three)  cp = Mul(c, p)  i = Add(up, cp)  j = Mul(i, r)  k9 = Tanh(j)
        l = Add(k9, one)  h = Mul(half, up)  active = Mul(h, l)
        """,
    ),
    "quick GELU by hand": (
        "quick_gelu",
        """
        a = Constant <value_float = 1.702> ()
        z9 = Mul(up, a)  s = Sigmoid(z9)  active = Mul(s, up)
        """,
    ),
    "StarReLU": (
        "relu_squared",
        """
        r = Relu(up)  r2 = Mul(r, r)  a = Constant <value_float = 0.8944> ()
        b = Constant <value_float = -0.4472> ()  ar = Mul(r2, a)  active = Add(ar, b)
        """,
    ),
    "silu of a scaled input": (
        "silu", "sc9 = Mul(up, half)  s = Sigmoid(sc9)  active = Mul(s, sc9)"
    ),
    "silu by Exp": (
        "silu", "n9 = Neg(up)  e9 = Exp(n9)  d9 = Add(e9, one)  active = Div(up, d9)"
    ),
}  # fmt: skip


def test_all_activations_are_tested() -> None:
    assert set(ACTIVATIONS) == set(UNARY)


def _kind(model: ir.Model) -> str:
    (node,) = [node for node in model.graph if node.op_type == "Activation"]
    return attributes_of(node)["kind"]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_is_recognised(kind: str) -> None:
    model = tiny(activation=ACTIVATIONS[kind], opset=20)
    assert _kind(assert_agrees(model, picture(model))) == kind


@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
def test_other_spelling_of_activation(name: str) -> None:
    kind, text = OTHER_ACTIVATIONS[name]
    model = tiny(activation=text, opset=20)
    assert _kind(assert_agrees(model, picture(model))) == kind
