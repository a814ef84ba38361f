"""Unary activation functions: name, NumPy reference and ONNX spelling, one row a function."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

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
        Any float array to an array of the same shape, computed in float64; no number outside of
        its domain.
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



class Table(Mapping[str, Unary]):
    """Unary functions by the ``kind`` attribute of an ``Activation``.

    A kind is the name of a known function, or ONNX text from ``x`` to ``y`` for any other: the
    text is then the function's body, and its reference executes it in float64.
    """

    def __init__(self, rows: Iterable[Unary]) -> None:
        self._known = {row.name: row for row in rows}

    def __getitem__(self, kind: str) -> Unary:
        if kind in self._known:
            return self._known[kind]
        return _written(kind)

    def __contains__(self, kind: object) -> bool:
        try:
            return isinstance(kind, str) and bool(self[kind])
        except KeyError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class Bodies(Mapping[str, str]):
    """One function body for each kind of activation.

    Parameters
    ----------
    write:
        From the text of a unary function, x to y, to the text of the body.
    """

    def __init__(self, write: Callable[[str], str] = str) -> None:
        self._write = write

    def __getitem__(self, kind: str) -> str:
        return self._write(UNARY[kind].body)

    def __iter__(self) -> Iterator[str]:
        return iter(UNARY)

    def __len__(self) -> int:
        return len(UNARY)


def _widened(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """The same function on float64: its constants and casts are of that type."""
    double = onnx.TensorProto.DOUBLE
    for node in function.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value_float":
                wide = onnx.helper.make_tensor("", double, [], [attribute.f])
                attribute.CopyFrom(onnx.helper.make_attribute("value", wide))
            elif node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = double
    return function


@functools.cache
def _written(text: str) -> Unary:
    """The function that ONNX text says; :class:`KeyError` when it is none."""
    head = '<domain: "vitrify", opset_import: ["": 18]> written (x) => (y) {'
    try:
        machine = ReferenceEvaluator(_widened(onnx.parser.parse_function(f"{head}{text}}}")))
    except (onnx.parser.ParseError, RuntimeError, NotImplementedError):
        raise KeyError(text) from None

    def reference(x: Array) -> Array:
        with np.errstate(all="ignore"):
            (y,) = machine.run(None, {"x": np.asarray(x, np.float64)}, attributes={})
        return np.asarray(y, np.float64)

    return Unary(name=text, doc="as its text says", reference=reference, body=text)


#: Every activation the ``kind`` attribute of ``Activation`` may name; see :class:`Table`.
UNARY = Table(_ROWS)
