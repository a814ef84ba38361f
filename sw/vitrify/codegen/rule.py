"""How the compiler asks an operation for its instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .lowering import Lowering


@dataclass(frozen=True)
class Rule:
    """The lowering of one class of ops.

    Parameters
    ----------
    lower : ``lower(state, op, step)`` emits op number ``step`` of the graph; it may take the ops
        behind it along, and then returns how many it has emitted
    takes_image : ``takes_image(state, op)``: whether it loads the image by itself
    ahead : ``ahead(state, op, step)`` emits what should be loaded while the op before is at work
    constants : ``constants(state, op, step)`` LOADs what little it needs, before weights that are
        ahead of time take their turn: LOADs are done in their order
    """

    lower: Callable[[Lowering, Any, int], int | None]
    takes_image: Callable[[Lowering, Any], bool] | None = None
    ahead: Callable[[Lowering, Any, int], None] | None = None
    constants: Callable[[Lowering, Any, int], None] | None = None
