"""Which axes of a view run over rows of its tensor, and which over channels.

Exporters put channels first, last or in between, split into heads, and rows into windows; the
index of a view tells all that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .values import CONSTANT, Unfit, View

Move = Callable[[np.ndarray], np.ndarray]
ROW, CHANNEL, STILL = "row", "channel", "still"


def sizes(value: ir.Value) -> tuple[int, int]:
    """Rows of an image and channels of a canonical tensor; [N, D] has one row."""
    shape = shape_of(value)
    return (int(shape[1]) if len(shape) == 3 else 1), int(shape[-1])


def covers(index: np.ndarray, count: int) -> bool:
    """Whether every number below ``count`` is in ``index``, whose numbers are below it, too."""
    found = np.zeros(count, bool)
    found[index] = True
    return bool(found.all())


def _kind(line: np.ndarray, width: int) -> str:
    line = line[line != CONSTANT]
    if line.size < 2 or (line == line[0]).all():
        return STILL
    rows = line // width
    return CHANNEL if (rows == rows[0]).all() else ROW


def kinds(view: View) -> list[str]:
    """For each axis whether it runs over rows, over channels or over nothing, by a few samples."""
    _, width = sizes(view.base)
    live = np.flatnonzero(view.index.ravel() != CONSTANT)
    found = [STILL] * view.index.ndim
    if not live.size:
        return found
    for flat in {int(live[0]), int(live[live.size // 2]), int(live[-1])}:
        place = np.unravel_index(flat, view.shape)
        for axis, size in enumerate(view.shape):
            if size > 1 and found[axis] != ROW:
                line = view.index[(*place[:axis], slice(None), *place[axis + 1 :])]
                kind = _kind(line, width)
                found[axis] = kind if kind != STILL else found[axis]
    return found


def _step(line: np.ndarray, width: int) -> int | None:
    """The length after which an axis that runs over rows and channels changes the other one."""
    if (line == CONSTANT).any() or len(line) < 4:
        return None
    rows, columns = line // width, line % width
    if (rows == rows[0]).all() or (columns == columns[0]).all():
        return None
    changing = columns if columns[1] == columns[0] else rows
    step = int(np.flatnonzero(changing != changing[0])[0])
    return step if 1 < step < len(line) and len(line) % step == 0 else None


def split_merged(view: View) -> tuple[View, list[list[int]]]:
    """``view`` with axes that run over rows and channels split, and what became of each axis."""
    _, width = sizes(view.base)
    shape: list[int] = []
    parts: list[list[int]] = []
    if not view.index.size:
        return view, [[axis] for axis in range(len(view.shape))]
    for axis, size in enumerate(view.shape):
        place: list[int | slice] = [0] * view.index.ndim
        place[axis] = slice(None)
        line = view.index[tuple(place)]
        step = _step(line, width)
        new = [size] if step is None else [size // step, step]
        parts.append(list(range(len(shape), len(shape) + len(new))))
        shape.extend(new)
    return view.moved(lambda array: array.reshape(shape)), parts


@dataclass
class Layout:
    """An order of the axes of a shape: rows first, then channels, which become one axis.

    ``whole`` is the shape before axes that run over both were split.
    """

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    channels: tuple[int, ...]
    whole: tuple[int, ...] | None = None

    @property
    def width(self) -> int:
        """Number of channels."""
        return math.prod(self.shape[axis] for axis in self.channels)

    def lined(self, view: View) -> View:
        """``view`` as [*rows, channels]."""
        return view.moved(self.line_up)

    def line_up(self, array: np.ndarray) -> np.ndarray:
        """The movement of :meth:`lined`."""
        rows = [self.shape[axis] for axis in self.rows]
        parts = array.reshape(self.shape).transpose(*self.rows, *self.channels)
        return parts.reshape(*rows, self.width)

    def back(self, array: np.ndarray) -> np.ndarray:
        """From [*rows, channels] to the shape, the whole one."""
        order = (*self.rows, *self.channels)
        parts = array.reshape([self.shape[axis] for axis in order]).transpose(np.argsort(order))
        return parts if self.whole is None else parts.reshape(self.whole)


def image_axis(view: View, batch: int) -> int:
    """The axis that the images of the batch are in; the first one where that is no axis alone."""
    count, width = sizes(view.base)
    live = np.flatnonzero(view.index.ravel() != CONSTANT)
    if batch > 1 and live.size:
        place = np.unravel_index(int(live[0]), view.shape)
        for axis, size in enumerate(view.shape):
            line = view.index[(*place[:axis], slice(None), *place[axis + 1 :])]
            line = line[line != CONSTANT] // (count * width)
            if size > 1 and not (line == line[0]).all():
                return axis
    return 0


def beside_images(
    work: Callable[[View, tuple[int, ...]], View], view: View, axes: tuple[int, ...], batch: int
) -> View:
    """``work(view, axes)``, which keeps the shape or makes ones of axes.

    A model of one image may have no axis of images left, and work along its first axis, which is
    another one: then an axis of one image is put before it.
    """
    if batch > 1 or 0 not in axes:
        return work(view, axes)
    lifted = work(view.moved(lambda array: array[None]), tuple(axis + 1 for axis in axes))
    return lifted.moved(lambda array: array[0])


def layout_of(
    kind: Sequence[str], shape: tuple[int, ...], first: int = 0, then: Sequence[int] = ()
) -> Layout:
    """The layout with the axes of kind channel behind all others.

    Parameters
    ----------
    first:
        The axis of the images.
    then:
        Axes that run over rows whatever their kind, to be the last of them.

    Raises
    ------
    Unfit
        If the images themselves are one of them.
    """
    if first in then:
        raise Unfit("it works along the axis of the images")
    channels = tuple(
        axis for axis, each in enumerate(kind) if each == CHANNEL and axis not in (first, *then)
    )
    rest = tuple(axis for axis in range(len(shape)) if axis not in (first, *then, *channels))
    return Layout(shape, (first, *rest, *then), channels)


def common(first: View, second: View, batch: int) -> Layout:
    """One layout for two views of the same shape: the first one's where they contradict."""
    merged = []
    for one, other in zip(kinds(first), kinds(second), strict=True):
        merged.append(other if one == STILL else one)
    if CHANNEL not in merged:
        # a value for each image or row, spread over all channels by both
        still = [axis for axis, kind in enumerate(merged) if kind == STILL]
        if still:
            merged[still[-1]] = CHANNEL
    return layout_of(merged, first.shape, image_axis(first, batch))


def spread(view: View, shape: tuple[int, ...]) -> View:
    """``view`` broadcast to ``shape``."""
    if view.shape == shape:
        return view
    return view.moved(lambda array: np.broadcast_to(array, shape))


def image_of_rows(lead: tuple[int, ...], batch: int, seen: np.ndarray) -> np.ndarray | None:
    """The image that each row of ``lead`` belongs to, rows without activations included.

    Parameters
    ----------
    seen:
        The image of each row, -1 where a row is all constants; shape ``lead``.
    """
    total = math.prod(lead)
    flat = seen.reshape(-1)
    if batch == 1:
        return np.zeros(total, np.int64)
    known = flat >= 0
    for axis, size in enumerate(lead):
        if size % batch:
            continue
        place = np.arange(size)
        for image in (place // (size // batch), place % batch):
            form = [1] * len(lead)
            form[axis] = size
            full = np.broadcast_to(image.reshape(form), lead).reshape(-1)
            if np.array_equal(full[known], flat[known]):
                return full
    if known.all() and (np.bincount(flat, minlength=batch) == total // batch).all():
        return flat.astype(np.int64)
    return None
