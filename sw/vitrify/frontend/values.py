"""What the tracer knows about a tensor of the original model.

The original graph is *executed symbolically*, node by node.  A tensor is one of

- :class:`Const`: known numbers,
- :class:`View`: elements of one tensor of the canonical graph, moved about, each scaled and shifted
  by constants,
- :class:`Elementwise`: a function of one view, element by element, known by its samples,
- :class:`Grouped`: several such functions, each of some of the elements,
- :class:`Scores`: the products of queries and keys, before or after the softmax,
- one of the kinds of :mod:`vitrify.frontend.mixed`, which only mixtures of experts have.

A number of the task is a view of the task input, and a constant that it chose one of a view of a
:func:`selected` tensor, which is no part of the canonical graph.

Reshapes, transposes, slices, gathers and splits simply run on the indices of a view, so that every
way to write the same data movement leads to the same canonical graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

import numpy as np
import onnx_ir as ir

from vitrify.ir import shape_of

from .limits import check_size

if TYPE_CHECKING:
    from .mixed import Gating, Mixture, Picked, Stack

#: Deviation from one that comes from rounding in float64.
_ROUNDING = 1e-12
#: Index of an element that belongs to no canonical tensor but is the constant in ``View.add``.
CONSTANT = -1


class Unfit(Exception):  # noqa: N818 -- a finding about a node, not yet an error
    """A node does not fit; the tracer adds its name.

    Parameters
    ----------
    reason:
        A clause, such as "it multiplies two activations".
    fix:
        A clause that names the way out.
    node:
        The node at fault, when it is another than the one being traced.
    """

    def __init__(
        self,
        reason: str,
        fix: str = "export the model without it",
        node: ir.Node | None = None,
    ) -> None:
        super().__init__(reason)
        self.fix = fix
        self.node = node


class Broken(Unfit):
    """A node breaks the rules of its operator."""


@dataclass(eq=False)
class Const:
    """A constant tensor, with the name of its initializer where it has one."""

    array: np.ndarray
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number."""
        return self.array.size == 1


@dataclass(eq=False)
class View:
    """``base.flat[index] * mul + add``, elementwise.

    Parameters
    ----------
    base:
        A tensor of the canonical graph, or the image.
    index:
        int32, flat positions in ``base``; :data:`CONSTANT` where ``add`` alone is the value.
    mul, add:
        float64 arrays of the shape of ``index``; ``None`` stands for one and zero.
    hints:
        Names of the constants that were folded in, for naming nodes.
    """

    base: ir.Value
    index: np.ndarray
    mul: np.ndarray | None = None
    add: np.ndarray | None = None
    hints: tuple[str, ...] = ()
    #: The canonical tensor and row map that the view became, once something needed them.
    settled: tuple[ir.Value, np.ndarray] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.index.shape

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> View:
        """The view after a data movement that ``move`` does to any array."""
        if self.settled is not None and (self.mul is not None or self.add is not None):
            # scale and shift are in a tensor already
            value, rows = self.settled
            width = int(shape_of(value)[-1])
            return View(value, move((rows[..., None] * width + np.arange(width)).astype(np.int32)))
        mul = None if self.mul is None else move(self.mul)
        add = None if self.add is None else move(self.add)
        return View(self.base, move(self.index), mul, add, self.hints)

    def affine(self, mul: np.ndarray | float, add: np.ndarray | float, hint: str = "") -> View:
        """``self * mul + add``, broadcast as NumPy does."""
        shape = np.broadcast_shapes(self.shape, np.shape(mul), np.shape(add))
        check_size(shape)
        view = self.moved(lambda array: np.broadcast_to(array, shape))
        own_mul = 1.0 if view.mul is None else view.mul
        own_add = 0.0 if view.add is None else view.add
        view.mul = np.broadcast_to(own_mul * np.asarray(mul, np.float64), shape)
        view.add = np.broadcast_to(own_add * np.asarray(mul, np.float64) + add, shape)
        if not view.add.any():
            view.add = None
        # a division and the product that takes it back
        if np.abs(view.mul - 1.0).max(initial=0.0) < _ROUNDING:
            view.mul = None
        if hint:
            view.hints = (*view.hints, hint)
        return view


@dataclass(eq=False)
class Elementwise:
    """A function of one view, element by element.

    Parameters
    ----------
    samples:
        The function's values on the sample grid, once for each tensor it may be taken as a function
        of: the view it started from and every affine step on the way.
    node, operands:
        The node it came from, in case the function turns out to be none of the known ones.
    kind:
        A known function and a scale s, where the node alone is ``kind(s * x) / s``.
    """

    shape: tuple[int, ...]
    samples: dict[View | Elementwise, np.ndarray]
    node: ir.Node
    operands: list[Traced]
    kind: tuple[str, float] | None = None
    view: View | None = field(default=None, repr=False)


@dataclass(eq=False)
class Grouped:
    """``functions[which]`` of the elements of ``root``.

    Parameters
    ----------
    which:
        Of the shape of ``root``; all alike but along one axis.
    functions:
        Of the stand-in variable of :mod:`vitrify.frontend.grouped`.
    """

    root: View
    which: np.ndarray
    functions: list[View | Elementwise]
    view: View | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.which.shape


@dataclass(eq=False)
class Scores:
    """``scale * q @ k.T + bias``, of queries and keys [..., T, d]; the softmax of it, normalised.

    Parameters
    ----------
    bias:
        Of the shape of the scores.
    view:
        The tensor that they became, once something needed one, and whether keys are its rows.
    """

    q: View | Const
    k: View | Const
    shape: tuple[int, ...]
    scale: float = 1.0
    normalised: bool = False
    bias: np.ndarray | None = None
    view: tuple[bool, View] | None = field(default=None, repr=False)


Traced = Union[Const, View, Elementwise, Grouped, Scores, "Gating", "Stack", "Mixture", "Picked"]


def whole(value: ir.Value, batch: int) -> View:
    """The view that is ``value`` itself, for ``batch`` images."""
    shape = (batch, *(int(size) for size in shape_of(value)[1:]))
    return View(value, np.arange(np.prod(shape), dtype=np.int32).reshape(shape))
