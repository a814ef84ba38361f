"""Normalisations that a model spells out: told by the operations that they have become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import UNARY, array_of, attributes_of, shape_of

from .layout import sizes

if TYPE_CHECKING:
    from .rows import Settler

#: Mean squares at which the factor of a normalisation is looked at.
_POINTS = np.geomspace(1e-3, 1e3, 25)
#: Largest relative deviation of the factor.
_TOLERANCE = 1e-4


def _input(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float, float]:
    """What is behind an ``Affine`` of one scale and one shift."""
    node = _input(value, "Affine")
    if node is None:
        return value, 1.0, 0.0
    scale, shift = (array_of(each) for each in node.inputs[1:] if each is not None)
    if scale.size != 1 or shift.size != 1:
        return value, 1.0, 0.0
    return node.inputs[0], float(scale.ravel()[0]), float(shift.ravel()[0])


def _moment(value: ir.Value | None) -> tuple[ir.Value, str, int, float, float] | None:
    """Of ``a * (mean of squares of x) + b``: x, axis, groups, a and b."""
    value, scale, shift = _scaled(value)
    if (node := _input(value, "MeanPool")) is not None:
        axis, groups, factor, bias = "tokens", 1, 1.0, 0.0
        attributes, inner = attributes_of(node), node.inputs[0]
        whole = inner is not None and (attributes["start"], attributes["end"]) == (
            0, sizes(inner)[0],
        )  # fmt: skip
        if not whole:
            return None
    elif (node := _input(value, "Linear")) is not None:
        weight, offset = (array_of(each) for each in node.inputs[1:] if each is not None)
        axis, groups = "channels", len(weight)
        width = weight.shape[1] // groups
        blocks = np.kron(np.eye(groups), np.ones((1, width)))
        top = float(weight.max())
        if weight.shape[1] % groups or not np.allclose(weight, top * blocks, 1e-5, 0.0):
            return None
        if not (offset == offset[0]).all():
            return None
        factor, bias = top * width, float(offset[0])
    else:
        return None
    square, again, also = _scaled(node.inputs[0])
    made = _input(square, "Activation")
    if made is None or also or made.inputs[0] is None:
        return None
    points = np.linspace(-3.0, 3.0, 13)
    values = UNARY[attributes_of(made)["kind"]].reference(points)
    unit = float(values[-1]) / 9.0
    if unit <= 0 or not np.allclose(values, unit * points**2, _TOLERANCE, 1e-9):
        return None
    return made.inputs[0], axis, groups, scale * factor * again * unit, scale * bias + shift


def as_norm(settler: Settler, x: ir.Value, factor: ir.Value) -> ir.Value | None:
    """``x * factor`` as an RMSNorm, when the factor is one over the root of x's mean square."""
    value, scale, shift = _scaled(factor)
    unfolded = _input(value, "Unfold")
    if unfolded is not None and len(shape_of(unfolded.inputs[0])) == 2:  # type: ignore[arg-type]
        value = unfolded.inputs[0]
    node = _input(value, "Activation")
    if node is None or shift or scale <= 0:
        return None
    found = _moment(node.inputs[0])
    if found is None or found[0] is not x:
        return None
    _, axis, groups, a, b = found
    with np.errstate(all="ignore"):
        values = scale * UNARY[attributes_of(node)["kind"]].reference(a * _POINTS + b)
        # factor = gamma / sqrt(mean square + epsilon)
        inverse = 1.0 / values**2
    if not np.isfinite(inverse).all() or (values <= 0).any():
        return None
    slope = (inverse[-1] - inverse[0]) / (_POINTS[-1] - _POINTS[0])
    zero = scale * UNARY[attributes_of(node)["kind"]].reference(np.array([b]))[0]
    epsilon = 0.0
    if np.isfinite(zero) and zero > 0:
        epsilon = float(1.0 / zero**2 / slope)
    line = slope * (_POINTS + epsilon)
    if slope <= 0 or not np.allclose(line, inverse, 2 * _TOLERANCE, 0.0):
        epsilon = max(0.0, float(inverse[0] / slope - _POINTS[0]))
        line = slope * (_POINTS + epsilon)
        if slope <= 0 or not np.allclose(line, inverse, 2 * _TOLERANCE, 0.0):
            return None
    gamma = np.full(sizes(x)[1], slope**-0.5)
    return settler.emit("RMSNorm", x, gamma, axis=axis, groups=groups, epsilon=epsilon)
