"""Normalisations that a model spells out: told by the operations that they have become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, array_of, attributes_of

from .layout import sizes

if TYPE_CHECKING:
    from .rows import Settler

#: Mean squares at which the factor of a normalisation is looked at.
_POINTS = np.geomspace(1e-3, 1e3, 25)
#: Largest relative deviation of the factor.
_TOLERANCE = 1e-4


Function = Callable[[np.ndarray], np.ndarray]


def _input(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def _line(scale: float, shift: float, x: np.ndarray) -> np.ndarray:
    return scale * x + shift


def _function(value: ir.Value | None) -> tuple[ir.Value | None, Function]:
    """The tensor that ``value`` is a function of, element by element, and the function."""
    steps: list[Function] = []
    while (node := _input(value, "Affine", "Activation", "Unfold")) is not None:
        if node.op_type == "Affine":
            scale, shift = (array_of(each) for each in node.inputs[1:] if each is not None)
            if scale.size != 1 or shift.size != 1:
                break
            steps.append(functools.partial(_line, scale.item(), shift.item()))
        elif node.op_type == "Activation":
            steps.append(UNARY[attributes_of(node)["kind"]].reference)
        elif attributes_of(node)["parts"] != 1:
            break
        value = node.inputs[0]

    def function(x: np.ndarray) -> np.ndarray:
        for step in reversed(steps):
            x = step(x)
        return x

    return value, function


def _mean(value: ir.Value | None) -> tuple[ir.Value, str, int, float, float] | None:
    """Of ``a * mean(x) + b``: x, the axis and the groups of the mean, a and b."""
    if (node := _input(value, "MeanPool")) is not None:
        inner, attributes = node.inputs[0], attributes_of(node)
        if inner is None or attributes["end"] - attributes["start"] != sizes(inner)[0]:
            return None
        return inner, "tokens", 1, 1.0, 0.0
    node = _input(value, "Linear")
    if node is None or node.inputs[0] is None:
        return None
    weight, bias = (array_of(each) for each in node.inputs[1:] if each is not None)
    groups, width = len(weight), weight.shape[1] // len(weight)
    blocks = np.kron(np.eye(groups), np.ones((1, width)))
    top = float(weight.max())
    even = blocks.shape == weight.shape and np.allclose(weight, top * blocks, 1e-5, 0.0)
    if not even or not (bias == bias[0]).all():
        return None
    return node.inputs[0], "channels", groups, top * width, float(bias[0])


def as_norm(settler: Settler, x: ir.Value, factor: ir.Value) -> ir.Value | None:
    """``x * factor`` as an RMSNorm, when the factor is one over the root of x's mean square."""
    value, function = _function(factor)
    found = _mean(value)
    if found is None:
        return None
    inner, axis, groups, a, b = found
    origin, square = _function(inner)
    points = np.linspace(-3.0, 3.0, 13)
    if origin is not x or not np.allclose(square(points), points**2, _TOLERANCE, 1e-9):
        return None
    # factor = gamma / sqrt(mean square + epsilon), or its inverse square is a line
    with np.errstate(all="ignore"):
        values = function(a * _POINTS + b)
        inverse = 1.0 / values**2
        zero = (1.0 / function(np.array([b])) ** 2).item()
    if not np.isfinite(inverse).all() or (values <= 0).any():
        return None
    slope = (inverse[-1] - inverse[0]) / (_POINTS[-1] - _POINTS[0])
    if slope <= 0:
        return None
    epsilon = max(0.0, zero / slope) if np.isfinite(zero) else 0.0
    if not np.allclose(slope * (_POINTS + epsilon), inverse, _TOLERANCE, 0.0):
        return None
    gamma = np.full(sizes(x)[1], slope**-0.5)
    return settler.emit("RMSNorm", x, gamma, axis=axis, groups=groups, epsilon=epsilon)
