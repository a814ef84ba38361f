"""Several tensors side by side as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .limits import check_size
from .pairs import join
from .rotary import unturned
from .values import CONSTANT, Const, Traced, Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def concatenated(tracer: Tracer, parts: Sequence[Const | View], axis: int) -> View:
    """Constants and parts of any tensors behind one another along an axis."""
    views = [part for part in parts if isinstance(part, View)]
    if not views:
        raise Unfit("it joins constants only")
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    check_size(shape)
    unturned_views = iter(unturned(views))
    parts = [part if isinstance(part, Const) else next(unturned_views) for part in parts]
    views = [part for part in parts if isinstance(part, View)]
    base, indices = views[0].base, [view.index for view in views]
    # what a scale and a shift of each part cannot follow is settled with it
    adapted = any(view.base is not base for view in views)
    if adapted:
        base, indices = join(tracer, views, axis)
    found = iter(zip(indices, views, strict=True))
    index, mul, add = [], [], []
    hints: tuple[str, ...] = ()
    for part in parts:
        if isinstance(part, Const):
            index.append(np.full(part.shape, CONSTANT, np.int32))
            mul.append(np.ones(part.shape))
            add.append(part.array.astype(np.float64))
            hints = (*hints, part.name)
            continue
        own, view = next(found)
        index.append(own.astype(np.int32))
        plain = adapted or view.mul is None
        mul.append(np.ones(part.shape) if plain else view.mul)
        add.append(np.zeros(part.shape) if adapted or view.add is None else view.add)
        hints = hints if adapted else (*hints, *view.hints)
    scaled = not adapted and any(view.mul is not None for view in views)
    moved = not adapted and any(view.add is not None for view in views)
    shifted = moved or len(views) < len(parts)
    return View(
        base,
        np.concatenate(index, axis),
        np.concatenate(mul, axis) if scaled else None,
        np.concatenate(add, axis) if shifted else None,
        hints,
    )


def joined(tracer: Tracer, parts: list[Traced], axis: int) -> View:
    """Parts of one shape side by side along a new axis."""
    wide = [
        Const(np.expand_dims(part.array, axis), part.name)
        if isinstance(part, Const)
        else tracer.view(part).moved(lambda array: np.expand_dims(array, axis))
        for part in parts
    ]
    return concatenated(tracer, wide, axis)
