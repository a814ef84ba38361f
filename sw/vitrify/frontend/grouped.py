"""Functions of one variable that differ from channel to channel: a table for each group of them.

Constants that are no single number (a rational's coefficients for each group, a spline's knots)
make *variants* of a function.  Each variant is a chain of elementwise operators of a stand-in
variable, told by its values like any other; which element has which is an array that moves with
the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .functions import samples_of
from .joining import concatenated
from .values import CONSTANT, Const, Elementwise, Grouped, Traced, View

if TYPE_CHECKING:
    from .trace import Tracer

#: More functions than these are no groups: scales of channels, say.
MOST = 32
#: Digits behind the point of scales and shifts: more are rounding.
_DIGITS = 12
#: The variable of all variants.
X = View(ir.Value(name="x"), np.zeros((), np.int32))
#: One variant: a number, the variable, or a function of it.
_Variant = Const | View | Elementwise
#: Makes a step of one variant.
_Step = Callable[[ir.Node, Sequence[_Variant]], Elementwise | None]
#: Which of the variants each element has, and the variants.
_Variants = tuple[np.ndarray, Sequence[_Variant]]


def grouped(
    node: ir.Node, operands: Sequence[Traced], step: _Step, least: int = 1
) -> Grouped | None:
    """What ``node`` makes of constants and functions of the same elements, or ``None``.

    ``None``, too, where fewer than ``least`` channels share a variant on the average.
    """
    roots = [root for value in operands for root in _roots(value)]
    if not roots:
        return None
    root = min(roots, key=_arrays)
    try:
        shape = np.broadcast_shapes(*(value.shape for value in operands))
    except ValueError:
        return None
    root = root.moved(lambda array: np.broadcast_to(array, shape))
    parts = [_variants(value, root, step, node) for value in operands]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    sizes = [len(variants) for _, variants in found]
    every = [np.broadcast_to(which, shape).ravel() for which, _ in found]
    used, which = np.unique(np.ravel_multi_index(every, sizes), return_inverse=True)
    which = which.reshape(shape)
    rows = np.prod([int(size) for size in shape_of(root.base)[1:-1]]) * shape[0]
    if len(used) > min(MOST, which.size / rows / least) or axis_of(which) is None:
        return None
    functions = []
    for choice in zip(*np.unravel_index(used, sizes), strict=True):
        made = step(node, [own[int(i)] for (_, own), i in zip(found, choice, strict=True)])
        if made is None:
            return None
        functions.append(made)
    return Grouped(root, which, functions)


def _roots(value: Traced) -> list[View]:
    """Elements that ``value`` is a function of."""
    match value:
        case Grouped():
            return [value.root]
        case View() if (value.index != CONSTANT).all():
            return [value]
        case Elementwise():
            return [root for root in value.samples if isinstance(root, View)]
    return []


def _arrays(root: View) -> tuple[bool, bool]:
    """Whether channels are scaled or shifted: what is not comes before what was made of it."""
    return root.mul is not None, root.add is not None


def _relative(view: View, root: View) -> tuple[np.ndarray, np.ndarray] | None:
    """``(mul, add)`` so that the view is ``mul * root + add``; ``None`` if there are none."""
    shape = root.shape
    if view.base is not root.base or not np.array_equal(
        np.broadcast_to(view.index, shape), root.index
    ):
        return None
    mul, add, root_mul, root_add = (
        np.broadcast_to(none if array is None else array, shape)
        for array, none in ((view.mul, 1.0), (view.add, 0.0), (root.mul, 1.0), (root.add, 0.0))
    )
    if not root_mul.all():
        return None
    ratio = (mul / root_mul).round(_DIGITS)
    return ratio, (add - ratio * root_add).round(_DIGITS)


def _variants(value: Traced, root: View, step: _Step, node: ir.Node) -> _Variants | None:
    shape = root.shape
    match value:
        case Const():
            numbers, which = np.unique(value.array, return_inverse=True)
            which = np.broadcast_to(which.reshape(value.shape), shape)
            return which, [Const(number.reshape(())) for number in numbers]
        case Grouped():
            found = _relative(value.root, root)
            if found is not None and (found[0] == 1.0).all() and not found[1].any():
                return np.broadcast_to(value.which, shape), value.functions
        case Elementwise():
            for own in _roots(value):
                if (lines := _lines(own, root, step, node)) is not None:
                    which, starts = lines
                    made = [_rebased(value, own, start, step) for start in starts]
                    return None if None in made else (which, [v for v in made if v is not None])
        case View():
            return _lines(value, root, step, node)
    return None


def _lines(
    view: View, root: View, step: _Step, node: ir.Node
) -> tuple[np.ndarray, list[View | Elementwise]] | None:
    """Scales and shifts of the root's elements as variants."""
    found = _relative(view, root)
    if found is None:
        return None
    pairs, which = np.unique(
        np.stack([part.ravel() for part in found], 1), axis=0, return_inverse=True
    )
    if len(pairs) > MOST:
        return None
    return which.reshape(root.shape), [_line(step, node, *pair) for pair in pairs]


def _line(step: _Step, node: ir.Node, mul: float, add: float) -> View | Elementwise:
    """``mul * x + add``."""
    value: View | Elementwise = X
    for op_type, number, none in (("Mul", mul, 1.0), ("Add", add, 0.0)):
        if number != none:
            part = ir.Node("", op_type, [], num_outputs=1, name=node.name)
            made = step(part, [value, Const(np.array(number))])
            assert made is not None
            value = made
    return value


def _rebased(
    value: Elementwise, root: View, start: View | Elementwise, step: _Step
) -> Elementwise | None:
    """The same chain from ``start`` on; ``None`` if it cannot be followed."""
    known: dict[int, _Variant | None] = {id(root): start}

    def part(old: Traced) -> _Variant | None:
        if id(old) not in known and isinstance(old, Elementwise):
            operands = [made for each in old.operands if (made := part(each)) is not None]
            known[id(old)] = None
            if start is X:
                samples: dict[View | Elementwise, np.ndarray] = {X: old.samples[root]}
                known[id(old)] = Elementwise((), samples, old.node, [*operands], old.kind)
            elif old.kind is None and len(operands) == len(old.operands):
                known[id(old)] = step(old.node, operands)
        return known[id(old)] if id(old) in known else old if isinstance(old, Const) else None

    made = part(value)
    return made if isinstance(made, Elementwise) else None


def axis_of(which: np.ndarray) -> int | None:
    """The axis along which variants differ; ``None`` if there are several."""
    found = [
        axis for axis, size in enumerate(which.shape)
        if size > 1 and (which != which.take([0], axis)).any()
    ]
    return None if len(found) > 1 else found[0] if found else which.ndim - 1


def resolved(
    tracer: Tracer, value: Grouped, apply: Callable[[View | Elementwise, View], View]
) -> View:
    """Each function of its own elements, side by side, and these back in their order.

    ``apply`` makes a function of the stand-in variable one of a view.
    """
    axis = axis_of(value.which)
    assert axis is not None
    profile = np.moveaxis(value.which, axis, 0).reshape(value.shape[axis], -1)[:, 0]
    order = np.argsort(profile, kind="stable")
    parts = []
    for number in np.unique(profile):
        places = np.flatnonzero(profile == number)
        part = value.root.moved(lambda array, at=places: array.take(at, axis))
        parts.append(apply(value.functions[int(number)], part))
    whole = parts[0] if len(parts) == 1 else concatenated(tracer, parts, axis)
    return whole.moved(lambda array: array.take(np.argsort(order), axis))


def samples(function: View | Elementwise) -> np.ndarray:
    """Values of a variant on the grid."""
    return samples_of(function)[X]
