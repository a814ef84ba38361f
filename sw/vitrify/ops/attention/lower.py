"""Attention whose heads a router may weigh, each for the rows that chose it.

A head's scores pick the queries of its queue and its values are made in the order of the queue,
because a softmax leaves no multiplier for the gate weight.  A product with a diagonal matrix then
weighs them and puts them to their rows; the others have got zeros before.  Heads that every row
chooses need no queue until they are weighed, in their place: a c tile reads the words that the one
before is writing, but meets those with zeros.  Only where a word has several c tiles, that would
not do, and every stage has a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from vitrify.arch.isa import Output, Stationary, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import weight_words
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At, MatrixProduct, Queue, Tiles
from vitrify.ops.experts.lower import check_router, share
from vitrify.quant.tensors import QTensor

from .bias import ScoreBias
from .integer import QAttention, QHeadGate
from .routed import RoutedBehind
from .scores import Heads, Pass


def lower(state: Lowering, op: QAttention, step: int) -> int:
    """Heads that are not weighed, then those that are; the balance last.

    Layers behind it that lead to a router are made along with it; returns how many ops.
    """
    behind = RoutedBehind.find(state, op, step)
    heads = Heads(state, op, step, behind.place_logits() if behind else [])
    for gate in op.gates:
        count = len(gate.heads)
        check_router(state, op.name, "heads", count, gate.choices, heads.queries)
    fits = heads.spread == heads.value_spread
    if state.dies_at(op.q, step) and op.q not in (op.k, op.v) and fits:
        out = state.alias(op.out, op.q)
    else:
        out = state.place_near(op.out)
    emitter = _Emitter(state, op, step, heads, out)
    if behind is None:
        emitter.emit()
        return 1
    emitter.emit(behind.prepare())
    return 1 + behind.count


def ahead(state: Lowering, op: QAttention, step: int) -> None:
    """The tables that are added to the scores."""
    if op.bias is not None:
        ScoreBias(state, op, step).load()


class _Emitter:
    """Emits all heads of one attention."""

    def __init__(
        self, state: Lowering, op: QAttention, step: int, heads: Heads, out: Placed
    ) -> None:
        self._state, self._op, self._step, self._heads, self._out = state, op, step, heads, out
        self._size = heads.value_spread.head_channels
        # Values of heads that all rows choose, and results before the balance.
        everywhere = any(_all_chosen(gate) for gate in op.gated)
        self._made = self._stage("weighed") if op.balance else out
        self._values = self._stage("values") if everywhere else self._made
        #: A head's rows in the order of its queue.
        self._inner: Placed | None = None
        if not all(_all_chosen(gate) for gate in op.gated):
            tensor = QTensor(f"{op.name}.queue", heads.queries, self._size, 8, 1.0)
            self._inner = state.place(tensor, apart=[op.out])
            state.release_later(tensor.name, step)

    def emit(self, then: Callable[[int], None] | None = None) -> None:
        """Image by image, and ``then`` what follows it.

        What needs no queue runs while the router is at work.
        """
        op = self._op
        weighed = {head for gate in op.gated for head in _heads(gate)}
        plain = [head for head in range(op.heads) if head not in weighed]
        for image in range(self._state.images):
            if not op.gates:
                self._plain(image, plain, self._out)
            for gate in op.gates:
                self._route(gate, image)
                if gate is op.gates[-1]:
                    # The router has a projection to hide its first turn behind.
                    self._plain(image, plain, self._made)
                if gate is op.balance:
                    self._in_place(gate, image, self._made, self._out)
                elif _all_chosen(gate):
                    self._plain(image, _heads(gate), self._values)
                    self._in_place(gate, image, self._values, self._made)
                else:
                    self._queues(gate, image)
            if then is not None:
                then(image)

    def _stage(self, what: str) -> Placed:
        """A tensor like the result; the result itself if that can be weighed in its place."""
        state, op, out = self._state, self._op, self._out
        if state.arch.width >= state.arch.depth:
            return out
        tensor = QTensor(f"{op.name}.{what}", out.rows, out.spread.physical, 8, 1.0)
        state.release_later(tensor.name, self._step)
        return replace(state.place(tensor, apart=[op.out]), spread=out.spread)

    def _route(self, gate: QHeadGate, image: int) -> None:
        rows = self._heads.queries
        self._state.builder.route(
            self._state.placed[gate.logits], experts=len(gate.heads),
            choices=gate.choices, normalise=gate.normalise, row=image * rows, rows=rows,
        )

    def _plain(self, image: int, numbers: Iterable[int], out: Placed) -> None:
        """Heads for every row, those of all runs staggered."""
        heads, count = self._heads, self._op.row_groups
        for start, rows in heads.blocks:
            heads.emit(
                Pass(run, head, start, rows, out, run * heads.queries + start,
                     heads.value_channel(head))
                for run in range(image * count, (image + 1) * count)
                for head in numbers
            )

    def _queues(self, gate: QHeadGate, image: int) -> None:
        """A head behind the other; each is weighed when all its values are under way."""
        heads, inner = self._heads, self._inner
        assert inner is not None
        count, macs = len(gate.heads), heads.macs * gate.choices

        def weigh(number: int) -> None:
            self._zeros(image, gate.first + number)
            self._weigh(gate, image, number, number, inner, self._made)

        def passes(number: int) -> Iterator[Pass]:
            for start, rows in heads.blocks:
                queue = Queue(number, start, 0 if start else share(macs, count, number))
                last = start + rows == heads.queries
                yield Pass(image, gate.first + number, start, rows, inner, start, 0, queue,
                           partial(weigh, number) if last else None)

        heads.emit(one for number in range(count) for one in passes(number))

    def _in_place(self, gate: QHeadGate, image: int, x: Placed, out: Placed) -> None:
        """Weigh heads that all rows chose: they are in the order of the queue."""
        for number, expert in enumerate(np.repeat(np.arange(len(gate.heads)), gate.heads)):
            self._weigh(gate, image, number, int(expert), x, out)

    def _zeros(self, image: int, head: int) -> None:
        """Something times zero: what the rows have that did not choose the head."""
        state, heads, v = self._state, self._heads, self._heads.v
        first, channel = image * heads.queries, heads.value_channel(head)
        for start, rows in state.row_blocks(heads.queries):
            state.builder.matmul(MatrixProduct(
                name=f"{self._op.name}.zeros[{head}]", op="zeros", macs=0, rows=rows, depth=1,
                columns=self._size,
                x=At(heads.q, first + start, heads.channel(head)),
                tiles=Tiles(Stationary.COLUMNS, At(v, image * heads.tokens, channel)),
                out=At(self._made, first + start, channel),
                fields={"transform": Transform.NONE, "output": Output.INT8, "multiplier": 0},
            ))

    def _weigh(
        self, gate: QHeadGate, image: int, number: int, expert: int, x: Placed, out: Placed
    ) -> None:
        """Weigh head ``number`` of the gate by the queue of ``expert``."""
        state, heads = self._state, self._heads
        head, first, size = gate.first + number, image * heads.queries, self._size
        own, channel = slice(number * size, (number + 1) * size), heads.value_channel(head)
        x_row, x_channel = (0, 0) if x is self._inner else (first, channel)
        bias, multiplier = (
            np.asarray(each)[own] for each in (gate.requant.bias, gate.requant.multiplier)
        )
        weights = weight_words(state.arch, np.diag(gate.weight[own]), bias, multiplier)
        for start, rows in state.row_blocks(heads.queries):
            state.builder.matmul(MatrixProduct(
                name=f"{self._op.name}.weights[{head}]", op="weights", macs=0, rows=rows,
                depth=size, columns=size, x=At(x, x_row + start, x_channel),
                out=At(out, first, channel), weights=[weights],
                queue=Queue(expert, start, 0, scatters=True),
                fields={
                    "transform": Transform.NONE, "output": Output.INT8,
                    **state.requant(gate.requant),
                },
            ))


def _heads(gate: QHeadGate) -> range:
    return range(gate.first, gate.first + sum(gate.heads))


def _all_chosen(gate: QHeadGate) -> bool:
    return gate.choices == len(gate.heads)
