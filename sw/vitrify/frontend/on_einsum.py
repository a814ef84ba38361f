"""Einsum: sums, products of two tensors at a time, and axes moved about."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import onnx_ir as ir

from .mixed import Gating, Mixture, Stack
from .on_elementwise import binary, step
from .on_linear import matmul
from .on_reduce import total
from .stack import moved
from .trace import Tracer, attribute, handles
from .values import Const, Elementwise, Scores, Traced, Unfit, View


def spelled_out(equation: str, ranks: list[int]) -> list[str]:
    """The terms of an equation and its result, with letters for ``...`` and the result written."""
    terms, arrow, out = equation.partition("->")
    labels = terms.split(",")
    letters = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [rank - len(term) + 3 for term, rank in zip(labels, ranks, strict=False)]
    most = max((n for term, n in zip(labels, hidden, strict=False) if "..." in term), default=0)
    if not arrow:
        once = sorted(letter for letter in set(terms) - {",", "."} if terms.count(letter) == 1)
        out = "..." * ("..." in terms) + "".join(once)
    if most < 0 or most > len(letters):
        raise Unfit(f"its equation {equation!r} does not fit its inputs")
    for place, (term, count) in enumerate(zip(labels, hidden, strict=False)):
        # axes behind dots line up at the end, as in a broadcast
        labels[place] = term.replace("...", "".join(letters[most - count : most]))
    return [*labels, out.replace("...", "".join(letters[:most]))]


@dataclass(frozen=True)
class _Term:
    """A tensor and the letters of its axes."""

    value: Traced
    axes: str

    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.value.shape, strict=True))

    def formed(self, tracer: Tracer, *groups: list[str]) -> Traced:
        """With axes in the order of ``groups``, each group one axis; an empty one of size 1."""
        sizes = self.sizes()
        form = [math.prod(sizes[axis] for axis in group) for group in groups]
        order = [self.axes.index(axis) for group in groups for axis in group]
        if tuple(form) == self.value.shape and order == list(range(len(order))):
            return self.value
        return moved(tracer, self.value, lambda array: array.transpose(order).reshape(form))

    def narrowed(self, tracer: Tracer, sizes: dict[str, int]) -> _Term:
        """Without axes of size 1 that are wider in another tensor."""
        at = tuple(i for i, axis in enumerate(self.axes) if self.value.shape[i] < sizes[axis])
        if any(self.value.shape[i] > 1 for i in at):
            raise Unfit(f"its axes {self.axes!r} have other sizes in another input")
        if not at:
            return self
        left = "".join(axis for i, axis in enumerate(self.axes) if i not in at)
        return _Term(moved(tracer, self.value, lambda array: array.squeeze(at)), left)

    def without(self, tracer: Tracer, axes: list[str]) -> _Term:
        """Summed over ``axes``."""
        if not axes:
            return self
        at = tuple(self.axes.index(axis) for axis in axes)
        left = "".join(axis for axis in self.axes if axis not in axes)
        if isinstance(self.value, Const):
            return _Term(Const(self.value.array.sum(axis=at), self.value.name), left)
        summed = total(tracer, tracer.view(self.value), at, mean=False)
        return _Term(summed.moved(lambda array: array.squeeze(at)), left)


@handles("Einsum")
def einsum(tracer: Tracer, node: ir.Node, inputs: list[Traced | None]) -> list[Traced]:
    """Products of the tensors from the left to the right, each summed as soon as it can be."""
    equation = attribute(node, "equation", "").replace(" ", "")
    ranks = [0 if value is None else len(value.shape) for value in inputs]
    *labels, out = spelled_out(equation, ranks)
    if list(map(len, labels)) != ranks:
        raise Unfit(f"its equation {equation!r} does not fit its inputs")
    if any(len(set(term)) < len(term) for term in (*labels, out)):
        raise Unfit(f"its equation {equation!r} takes a diagonal")
    terms = [
        _Term(value, axes) for value, axes in zip(inputs, labels, strict=True) if value is not None
    ]
    widest: dict[str, int] = {}
    for term in terms:
        for axis, size in term.sizes().items():
            widest[axis] = max(size, widest.get(axis, 1))
    terms = [term.narrowed(tracer, widest) for term in terms]
    found = terms[0]
    for place, other in enumerate(terms[1:], 1):
        kept = "".join([out, *(term.axes for term in terms[place + 1 :])])
        found = _product(tracer, node, found, other, kept)
    found = found.without(tracer, [axis for axis in found.axes if axis not in out])
    return [found.formed(tracer, *map(list, out))]


for _kind in (Stack, Mixture, Gating):
    handles("Einsum", kind=_kind)(einsum)


def _product(tracer: Tracer, node: ir.Node, left: _Term, right: _Term, kept: str) -> _Term:
    """The product of two tensors, summed over what is not in ``kept``."""
    left = left.without(tracer, [a for a in left.axes if a not in right.axes + kept])
    right = right.without(tracer, [a for a in right.axes if a not in left.axes + kept])
    batch = [axis for axis in left.axes if axis in right.axes and axis in kept]
    inner = [axis for axis in left.axes if axis in right.axes and axis not in kept]
    rows = [axis for axis in left.axes if axis not in right.axes]
    columns = [axis for axis in right.axes if axis not in left.axes]
    known = left.sizes() | right.sizes()
    each = [[axis] for axis in batch]
    plain = View | Elementwise | Const | Scores
    if not inner and isinstance(left.value, plain) and isinstance(right.value, plain):
        x = left.formed(tracer, *each, *([axis] for axis in rows), *([] for _ in columns))
        y = right.formed(tracer, *each, *([] for _ in rows), *([axis] for axis in columns))
        return _Term(binary(tracer, step("Mul", node), [x, y])[0], "".join(batch + rows + columns))
    # A constant matrix is applied along one axis: the others stay as they are.
    before = rows[:-1] if isinstance(right.value, Const) and not batch else []
    after = columns[:-1] if isinstance(left.value, Const) else []
    rows, columns = rows[len(before) :], columns[len(after) :]
    lead, others = [[axis] for axis in before], [[axis] for axis in after]
    x = left.formed(tracer, *each, *lead, *([] for _ in after), rows, inner)
    y = right.formed(tracer, *each, *([] for _ in before), *others, inner, columns)
    result = matmul(tracer, node, [x, y])[0]
    axes = "".join([*batch, *before, *after, *rows, *columns])
    form = tuple(known[axis] for axis in axes)
    if result.shape != form:
        result = moved(tracer, result, lambda array: array.reshape(form))
    return _Term(result, axes)
