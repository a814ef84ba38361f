"""Activation functions are recognised by what they compute, however they are spelled."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import tiny as t
from agree import assert_agrees, kinds
from tiny import picture, tiny

from vitrify.arch.errors import UnsupportedOpError
from vitrify.frontend import canonicalise
from vitrify.ir import UNARY, attributes_of, evaluate

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

C = "Constant <value_float = {}> ()"
#: Functions that have no name of their own; each becomes an activation with its text as kind.
WRITTEN = {
    "Selu": "active = Selu(up)",
    "Celu": "active = Celu <alpha = 0.5> (up)",
    "LeakyRelu 0.2": "active = LeakyRelu <alpha = 0.2> (up)",
    "HardSigmoid of Keras": "active = HardSigmoid <alpha = 0.2, beta = 0.5> (up)",
    "Softsign": "active = Softsign(up)",
    "ThresholdedRelu": "active = ThresholdedRelu <alpha = 0.7> (up)",
    "Shrink": "active = Shrink <lambd = 0.3, bias = 0.1> (up)",
    "PRelu of one slope": "sl = Constant <value = float[1] {0.3}> ()  active = PRelu(up, sl)",
    "PRelu of equal slopes": "n = Constant <value_ints = [16]> ()  sl = Expand(half, n)\n"
    "active = PRelu(up, sl)",
    "Sin": "active = Sin(up)",
    "Exp": f"k9 = {C.format(0.3)}  uk = Mul(up, k9)  active = Exp(uk)",
    "Abs": "active = Abs(up)",
    "Clip 0 20": f"lo = {C.format(0.0)}  hi = {C.format(20.0)}  active = Clip(up, lo, hi)",
    "Clip -3 2": f"lo = {C.format(-3.0)}  hi = {C.format(2.0)}  active = Clip(up, lo, hi)",
    "Clip without a low end": f"hi = {C.format(0.5)}  active = Clip(up, , hi)",
    "Min": f"hi = {C.format(0.5)}  active = Min(up, hi)",
    "ReLU of two pieces": "r = Relu(up)  n = Neg(up)  rn = Relu(n)  rh = Mul(rn, half)\n"
    "active = Sub(r, rh)",
    "x + sin(x)**2": "w = Sin(up)  w2 = Mul(w, w)  active = Add(up, w2)",
    "GELU by sigmoid of a cube": "p9 = Mul(up, up)  q9 = Mul(p9, up)  w = Sigmoid(q9)\n"
    "active = Mul(up, w)",
    "Where": "n = Constant <value_float = 0.0> ()  g = Greater(up, n)  w = Mul(up, half)\n"
    "active = Where(g, up, w)",
    "mask by Cast": "n = Constant <value_float = 0.3> ()  g = Less(up, n)  m = Cast <to = 1> (g)\n"
    "active = Mul(m, up)",
    "FastGelu, then clipped": f"w = com.microsoft.FastGelu(up)  hi = {C.format(0.8)}\n"
    "active = Min(w, hi)",
    "QuickGelu, then a root": "w = com.microsoft.QuickGelu <alpha = 1.5> (up)  a = Abs(w)\n"
    "active = Sqrt(a)",
    "Gelu, then squared": 'w = Gelu <approximate = "tanh"> (up)  active = Mul(w, w)',
    "scaled, shifted": "w = Selu(up)  w2 = Mul(w, half)  active = Sub(one, w2)",
}  # fmt: skip


def test_all_activations_are_tested() -> None:
    assert set(ACTIVATIONS) == set(UNARY)


def _kind_of(model: ir.Model, place: int) -> str:
    found = [node for node in model.graph if node.op_type == "Activation"]
    return attributes_of(found[place])["kind"]


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


@pytest.mark.parametrize("name", WRITTEN)
def test_any_function_of_one_variable(name: str) -> None:
    model = tiny(activation=WRITTEN[name], opset=20)
    canonical = assert_agrees(model, picture(model))
    kind = _kind(canonical)
    assert kind not in list(UNARY)
    x = np.linspace(-3, 3, 50)
    body = evaluate_text(kind, x)
    np.testing.assert_allclose(UNARY[kind].reference(x), body, rtol=2e-5, atol=2e-6)


def evaluate_text(text: str, x: np.ndarray) -> np.ndarray:
    """The text, executed by ONNX Runtime in float32."""
    head = '<ir_version: 9, opset_import: ["": 18]> m (float[n] x) => (float[n] y) {'
    proto = onnx.parser.parse_model(f"{head}{text}}}")
    return evaluate(ir.from_proto(proto), {"x": x.astype(np.float32)}, ["y"])["y"]


def test_functions_that_differ_far_from_zero_only() -> None:
    """ReLU up to 20 is no ReLU, and a clamp of the residual stream stays."""
    model = tiny(activation=WRITTEN["Clip 0 20"], opset=20)
    feeds = {name: 1000 * image for name, image in picture(model).items()}
    assert_agrees(model, feeds)
    lo, hi = C.format(-12.0), C.format(12.0)
    clamp = f"yy = Add(x, projected)  lo = {lo}  hi = {hi}  y = Clip(yy, lo, hi)"
    model = tiny(residual=t.RESIDUAL.replace("y = Add(x, projected)", clamp), opset=20)
    feeds = {name: 100 * image for name, image in picture(model).items()}
    assert "Clip" in "".join(
        attributes_of(node).get("kind", "") for node in assert_agrees(model, feeds).graph
    )


def test_residual_of_a_function_of_the_stream_stays_a_residual() -> None:
    model = tiny(residual=t.RESIDUAL + "\nr9 = Selu(y)  y9 = Add(y, r9)", opset=20,
                 mlp=t.MLP.replace("(y,", "(y9,"))  # fmt: skip
    canonical = assert_agrees(model, picture(model))
    assert kinds(canonical).count("Add") == 2 + 1
    assert "Selu" in _kind_of(canonical, 0)


def test_two_different_tensors_make_no_function() -> None:
    model = tiny(activation="active = Max(up, um)", opset=20)
    with pytest.raises(UnsupportedOpError, match="combines two different activations"):
        canonicalise(model)
