"""The form of results: what the user of a model gets is a rearranged canonical tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .op import INTS, Attributes, Op, Shape, last, require

#: Operation of an output whose form differs from its tensor's; nothing else may use it.
ARRANGE = "Arrange"


def _arrange(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    x, scale, shift = shapes
    index, form = attributes["index"], attributes["form"]
    each = (last(x),)
    require(scale == shift == each, f"scale {scale} and shift {shift} do not fit x {x}")
    size = int(np.prod([int(dim) for dim in x[1:]]))
    require(len(index) > 0 and len(index) == int(np.prod(form)), f"{len(index)} do not make {form}")
    require(min(index) >= 0 and max(index) < size, f"its index is outside the {size} elements")
    return (x[0], *form)


def steps_of(index: np.ndarray) -> tuple[int, tuple[int, ...]] | None:
    """First element and step along each axis of a regular index, or ``None`` for another."""
    start = int(index.flat[0])
    steps = tuple(
        int(index.take(1, axis).flat[0]) - start if size > 1 else 0
        for axis, size in enumerate(index.shape)
    )
    grid = np.indices(index.shape).reshape(index.ndim, -1)
    regular = np.array_equal(start + np.array(steps, np.int64) @ grid, index.ravel())
    return (start, steps) if regular else None


OUTPUT_OPS = (
    Op(
        name=ARRANGE,
        doc="elements of an image's x * scale + shift, by their flat places, in the given form",
        inputs=("x", "scale", "shift"),
        parameters=("scale", "shift"),
        attributes={"index": INTS, "form": INTS},
        shape=_arrange,
        body="""
            i = Constant <value_ints: ints = @index> ()
            f = Constant <value_ints: ints = @form> ()
            keep = Constant <value_ints = [0]> ()
            flat = Constant <value_ints = [0, -1]> ()
            scaled = Mul(x, scale)
            shifted = Add(scaled, shift)
            rows = Reshape(shifted, flat)
            chosen = Gather <axis = 1> (rows, i)
            shape = Concat <axis = 0> (keep, f)
            y = Reshape(chosen, shape)
        """,
    ),
)
