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


def _split(line: np.ndarray) -> list[tuple[int, int]]:
    """Sizes and steps of the axes, from the outermost, that an axis with several steps falls into.

    Rows of a map made of patches: one step inside a patch, another one to the next patch.
    """
    found: list[tuple[int, int]] = []
    while len(line) > 1:
        apart = np.diff(line)
        size = int(np.append(np.flatnonzero(apart != apart[0]), len(apart))[0]) + 1
        size = size if len(line) % size == 0 else len(line)
        found.insert(0, (size, int(apart[0])))
        line = line[::size]
    return found or [(1, 0)]


def steps_of(index: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """First element, grid, and the step along each axis of it, or ``None`` if there are none.

    The grid is the index's shape, its axes split where they have several steps (pixel shuffle).
    """
    start = int(index.flat[0])
    axes = [
        pair for axis in range(index.ndim)
        for pair in _split(np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1)[:, 0])
    ]  # fmt: skip
    grid, steps = tuple(size for size, _ in axes), tuple(step for _, step in axes)
    places = np.indices(grid).reshape(len(grid), index.size)
    regular = np.array_equal(start + np.array(steps, np.int64) @ places, index.ravel())
    return (start, grid, steps) if regular else None


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
