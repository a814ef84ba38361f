"""Unary activation functions: name, NumPy reference and ONNX spelling, one row a function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

#: Slope of the sigmoid in CLIP's "quick" GELU.
QUICK_GELU_ALPHA = 1.702
#: The cubic term of the tanh approximation of GELU.
GELU_CUBIC = 0.044715

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, kw_only=True)
class Unary:
    """One elementwise function of one variable.

    Parameters
    ----------
    reference:
        Any float array to an array of the same shape, computed in float64.
    body:
        ONNX text of the function body, from ``x`` to ``y``.
    """

    name: str
    doc: str
    reference: Callable[[Array], Array]
    body: str


def _sigmoid(x: Array) -> Array:
    # exp of a non-positive argument never overflows
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _constant(name: str, value: float) -> str:
    return f"{name} = Constant <value_float = {value!r}> ()\n"


_GELU = (
    _constant("r", math.sqrt(0.5))
    + _constant("one", 1.0)
    + _constant("half", 0.5)
    + "s = Mul(x, r)  e = Erf(s)  f = Add(e, one)  h = Mul(x, half)  y = Mul(h, f)"
)
_GELU_TANH = (
    _constant("c", GELU_CUBIC)
    + _constant("r", math.sqrt(2 / math.pi))
    + _constant("one", 1.0)
    + _constant("half", 0.5)
    + "q = Mul(x, x)  u = Mul(q, x)  w = Mul(u, c)  v = Add(x, w)  z = Mul(v, r)  t = Tanh(z)\n"
    + "f = Add(t, one)  h = Mul(x, half)  y = Mul(h, f)"
)
_QUICK_GELU = _constant("a", QUICK_GELU_ALPHA) + "z = Mul(x, a)  s = Sigmoid(z)  y = Mul(x, s)"
_RELU6 = _constant("lo", 0.0) + _constant("hi", 6.0) + "y = Clip(x, lo, hi)"

_ROWS = (
    Unary(
        name="gelu",
        doc="x * Phi(x), with the error function",
        reference=lambda x: 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5))),
        body=_GELU,
    ),
    Unary(
        name="gelu_tanh",
        doc="GELU by the tanh approximation",
        reference=lambda x: (
            0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + GELU_CUBIC * x**3)))
        ),
        body=_GELU_TANH,
    ),
    Unary(
        name="quick_gelu",
        doc="x * sigmoid(1.702 x)",
        reference=lambda x: x * _sigmoid(QUICK_GELU_ALPHA * x),
        body=_QUICK_GELU,
    ),
    Unary(
        name="silu",
        doc="x * sigmoid(x)",
        reference=lambda x: x * _sigmoid(x),
        body="s = Sigmoid(x)  y = Mul(x, s)",
    ),
    Unary(
        name="relu",
        doc="max(x, 0)",
        reference=lambda x: np.maximum(x, 0.0),
        body="y = Relu(x)",
    ),
    Unary(
        name="relu6",
        doc="min(max(x, 0), 6)",
        reference=lambda x: np.clip(x, 0.0, 6.0),
        body=_RELU6,
    ),
    Unary(
        name="relu_squared",
        doc="max(x, 0) squared (StarReLU up to an affine map)",
        reference=lambda x: np.maximum(x, 0.0) ** 2,
        body="r = Relu(x)  y = Mul(r, r)",
    ),
    Unary(name="tanh", doc="tanh(x)", reference=np.tanh, body="y = Tanh(x)"),
    Unary(name="sigmoid", doc="1 / (1 + exp(-x))", reference=_sigmoid, body="y = Sigmoid(x)"),
    Unary(
        name="hard_swish",
        doc="x * clip(x / 6 + 1 / 2, 0, 1)",
        reference=lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        body="y = HardSwish(x)",
    ),
    Unary(
        name="hard_sigmoid",
        doc="clip(x / 6 + 1 / 2, 0, 1)",
        reference=lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        body=f"y = HardSigmoid <alpha = {1 / 6!r}, beta = 0.5> (x)",
    ),
    Unary(
        name="elu",
        doc="x for x > 0, else exp(x) - 1",
        reference=lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
        body="y = Elu(x)",
    ),
    Unary(
        name="leaky_relu",
        doc="x for x > 0, else x / 100",
        reference=lambda x: np.where(x > 0, x, 0.01 * x),
        body="y = LeakyRelu(x)",
    ),
    Unary(
        name="mish",
        doc="x * tanh(softplus(x))",
        reference=lambda x: x * np.tanh(_softplus(x)),
        body="s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)",
    ),
    Unary(name="softplus", doc="log(1 + exp(x))", reference=_softplus, body="y = Softplus(x)"),
)

#: Every activation the ``kind`` attribute of ``Activation`` may name.
UNARY: dict[str, Unary] = {row.name: row for row in _ROWS}
