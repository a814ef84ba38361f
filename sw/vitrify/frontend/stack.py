"""Results of experts side by side, one entry of an axis for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from .layout import CHANNEL, ROW, image_axis, kinds, split_merged
from .mixed import Gating, Mixture, Move, Stack
from .product import product
from .values import Const, Traced, Unfit, View

if TYPE_CHECKING:
    from .trace import Tracer


def moved(tracer: Tracer, value: Traced, move: Move) -> Traced:
    """``value`` after a data movement, whatever kind it is."""
    if isinstance(value, Const):
        return Const(move(value.array), value.name)
    if isinstance(value, Stack):
        return move_stack(tracer, value, move)
    if isinstance(value, Gating | Mixture):
        return value.moved(move)
    return tracer.view(value).moved(move)


def move_stack(tracer: Tracer, stack: Stack, move: Move) -> Traced:
    """The parts keep an axis of their own; a single one that is left stands for itself."""
    inner = stack.parts[0].shape
    size = int(np.prod(inner))
    place = move(
        np.stack(
            [
                np.arange(size).reshape(inner) + part * size
                for part in range(len(stack.parts))
            ],
            stack.axis,
        )
    )  # fmt: skip
    owner, local = place // size, place % size

    def part(number: int, where: np.ndarray) -> Traced:
        return moved(tracer, stack.parts[number], lambda array: array.reshape(-1)[where])

    if owner.size and (owner == owner.flat[0]).all():
        return part(int(owner.flat[0]), local)
    for axis in range(place.ndim):
        lined = np.moveaxis(owner, axis, 0).reshape(place.shape[axis], -1)
        if (lined == lined[:, :1]).all():
            numbers = lined[:, 0]
            parts = [
                part(int(number), local.take(entry, axis)) for entry, number in enumerate(numbers)
            ]
            return Stack(parts, axis, stack.node)
    raise Unfit("it takes the results of experts apart")


def split(tracer: Tracer, value: Traced, axis: int, shape: tuple[int, ...]) -> list[Traced]:
    """The entries of one axis of ``value`` after broadcasting it to ``shape``."""

    def entry(number: int) -> Move:
        return lambda array: np.broadcast_to(array, shape).take(number, axis)

    if isinstance(value, Const) and value.is_scalar:
        return [value] * shape[axis]
    if isinstance(value, Stack):
        if value.shape == shape and value.axis == axis:
            return list(value.parts)
        spread = move_stack(tracer, value, lambda array: np.broadcast_to(array, shape))
        if isinstance(spread, Stack) and spread.axis == axis:
            return list(spread.parts)
    return [moved(tracer, value, entry(number)) for number in range(shape[axis])]


def lift(
    tracer: Tracer, node: ir.Node, inputs: list[Traced],
    apply: Callable[[list[Traced]], Traced],
) -> Stack:  # fmt: skip
    """An elementwise operation, part by part."""
    shape = np.broadcast_shapes(*(value.shape for value in inputs))
    stacks = [value for value in inputs if isinstance(value, Stack)]
    # counted from the end, an axis stays where it is when others are put in front
    axis = len(shape) - len(stacks[0].shape) + stacks[0].axis
    columns = [split(tracer, value, axis, shape) for value in inputs]
    return Stack([apply(list(row)) for row in zip(*columns, strict=True)], axis, node)


def _products_by_row(
    tracer: Tracer, x: View, weight: Const, lead: tuple[int, ...]
) -> View | None:
    """``x @ weight`` where a matrix is for some rows of tokens; ``None`` if it is for an expert.

    Relative positions of queries are such.  The matrices become rows of constants, and all
    products one, in groups.
    """
    own, found = _padded(weight.shape[:-2], lead), kinds(x)
    if x.shape[:-2] != lead or any(own[a] > 1 and found[a] != ROW for a in range(len(lead))):
        return None
    matrices = Const(weight.array.swapaxes(-1, -2), weight.name)
    first = image_axis(x, tracer.batch)
    if first < len(lead):
        return product(tracer, x, matrices, "nt")

    # the images, and heads of these, are a part of the rows of every matrix
    rows = x.moved(lambda array: np.moveaxis(
        array.reshape(*lead, tracer.batch, -1, array.shape[-1]), len(lead), 0
    ))
    heads = _heads_of_rows(rows)
    split = (*rows.shape[:-2], heads, -1)
    apart = rows.moved(
        lambda array: np.moveaxis(array.reshape(*split, array.shape[-1]), len(split) - 2, 1)
    )
    made = product(tracer, apart, matrices, "nt")

    def together(array: np.ndarray) -> np.ndarray:
        wide = np.moveaxis(array, 1, len(split) - 2).reshape(*rows.shape[:-1], array.shape[-1])
        return np.moveaxis(wide, 0, len(lead)).reshape(*x.shape[:-1], array.shape[-1])

    return made.moved(together)


def _heads_of_rows(view: View) -> int:
    """Heads that the axis before the last runs over, each for several rows of tokens."""
    apart, parts = split_merged(view)
    first, *rest = parts[-2]
    return apart.shape[first] if rest and kinds(apart)[first] == CHANNEL else 1


def expert_products(tracer: Tracer, node: ir.Node, x: Traced, weight: Const) -> Stack | View:
    """``x @ weight`` for a stack of matrices: one linear layer for each."""
    from .on_linear import weighted

    lead = np.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
    if isinstance(x, View) and (made := _products_by_row(tracer, x, weight, lead)) is not None:
        return made
    many = [axis for axis, size in enumerate(_padded(weight.shape[:-2], lead)) if size > 1]
    if len(many) != 1:
        raise Unfit("its constant is no single matrix and no matrix for each expert")
    axis = many[0]
    wide = (*lead, *x.shape[-2:])
    same = _padded(x.shape[:-2], lead)[axis] == 1
    matrices = weight.array.reshape(-1, *weight.shape[-2:])
    if same:
        one = moved(tracer, x, lambda array: np.broadcast_to(array, wide).take(0, axis))
        operands = [one] * len(matrices)
    else:
        operands = split(tracer, x, axis, wide)
    parts = [
        weighted(tracer, node, tracer.view(operand), weight, matrix.T, None)
        for operand, matrix in zip(operands, matrices, strict=True)
    ]
    return Stack(parts, axis, node)


def _padded(shape: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (len(lead) - len(shape)) + tuple(shape)


def weighed_sum(tracer: Tracer, weights: Gating, stack: Stack) -> Mixture:
    """``weights @ stack``: [..., 1, E] times [..., E, D]."""
    from .on_experts import total, weigh

    inner = len(stack.shape) - 2
    if stack.axis != inner or weights.shape[-2] != 1 or weights.shape[-1] != len(stack.parts):
        raise Unfit("it multiplies the weights of a router by something else than results")
    terms = []
    for number, part in enumerate(stack.parts):
        gating = weights.moved(lambda array, number=number: array[..., 0, number, None])
        terms.append(weigh(tracer, gating, part))
    result = total(tracer, list(terms))
    assert isinstance(result, Mixture), "its terms are weighed"
    return result.moved(lambda array: array[..., None, :])
