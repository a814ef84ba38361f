"""Multi-head attention: scores, then values, head by head, query block by query block; images
one after another.

Heads are staggered (scores of head h+1 before the values of head h), so that the row maximum is
complete when the softmax weights are read.  Keys and values stand still; queries stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Output, RowScale, Stationary, Stats, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import weight_words
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At, MatrixProduct, Queue, Tiles
from vitrify.quant.tensors import QTensor

from .bias import ScoreBias
from .integer import QAttention

#: Score buffers in flight.
_BUFFERS = 2


@dataclass(frozen=True)
class Pass:
    """A head's result for a block of queries, and where it goes.

    ``run`` is the number of the run of rows that attends to itself, among those of all images.
    With ``queue`` the block is one of the queue of rows that chose the head.  ``then`` is called
    when the values have been emitted.
    """

    run: int
    head: int
    start: int
    rows: int
    out: Placed
    out_row: int
    out_channel: int
    queue: Queue | None = None
    then: Callable[[], None] | None = None


class Heads:
    """Emits scores and values of the heads of ``op``, which is number ``step``.

    Scores are not in the banks of ``apart``, which somebody else reads meanwhile.
    """

    def __init__(
        self, state: Lowering, op: QAttention, step: int, apart: Sequence[str] = ()
    ) -> None:
        self._state, self._op = state, op
        self.q, self.k, self.v = (state.placed[name] for name in (op.q, op.k, op.v))
        self.spread, self.value_spread = self.q.spread, self.v.spread
        #: Rows of a run: those of an image, or of one of its row groups.
        self.tokens, self.queries = (
            x.rows // (state.images * op.row_groups) for x in (self.k, self.q)
        )
        self.blocks = state.row_blocks(self.queries, state.strategy.score_blocks)
        self._count = 0
        self._scores: list[Placed] = []
        for i in range(min(_BUFFERS, op.heads * op.row_groups)):
            tensor = QTensor(f"{op.name}.scores{i}", self.blocks[0][1], self.tokens, 8, 1.0)
            placed = state.place(tensor, beside=[op.k, op.v, *apart])
            state.release_later(placed.name, step)
            self._scores.append(state.with_statistics(placed))
        self._bias = None if op.bias is None else ScoreBias(state, op, step)
        if op.positions and not state.arch.addends:
            raise CapacityError(
                f"attention {op.name!r} adds positions to its scores, and arch "
                f"{state.arch.name!r} is without 'addends'; choose an architecture that has them"
            )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the scores of a head of a run."""
        return self.queries * self.tokens * self.spread.head_channels

    def channel(self, head: int) -> int:
        """First physical channel of a head of queries and keys."""
        return head * self.spread.head_words * self._state.arch.depth

    def value_channel(self, head: int) -> int:
        """First physical channel of a head of values and results."""
        return head * self.value_spread.head_words * self._state.arch.depth

    def emit(self, passes: Iterable[Pass]) -> None:
        """All passes, staggered."""
        if self._state.rehearses and self._bias is None:
            return  # only tables of a bias take places meanwhile
        before: tuple[Pass, Placed] | None = None
        for one in passes:
            buffer = self._scores[self._count % len(self._scores)]
            self._count += 1
            self._scores_of(one, buffer)
            if before is not None:
                self._values_of(*before)
            before = one, buffer
        if before is not None:
            self._values_of(*before)

    def _scores_of(self, one: Pass, buffer: Placed) -> None:
        state, op, k = self._state, self._op, self.k
        self._positions_of(one, buffer)
        first, channel = one.run * self.tokens, self.channel(one.head)
        bias = None
        if self._bias is not None:
            bias = self._bias.take(one.run % op.row_groups, one.head, one.start)
        state.builder.matmul(MatrixProduct(
            name=f"{op.name}.scores[{one.head}]", op="scores", macs=self._macs_of(one, self.macs),
            rows=one.rows, depth=self.spread.head_channels, columns=self.tokens,
            x=At(self.q, one.run * self.queries + (0 if one.queue else one.start), channel),
            tiles=Tiles(Stationary.ROWS, At(k, first, channel)), out=At(buffer),
            queue=one.queue and replace(one.queue, gathers=True), adds=bias, table=op.table,
            fields={
                "transform": Transform.NONE,
                "output": Output.ADD8 if bias or op.positions else Output.INT8,
                **state.requant_single(op.logits),
                **({} if op.values else {"stats": Stats.MAX, "stat_dst": buffer.stat}),
            },
        ))

    def _positions_of(self, one: Pass, buffer: Placed) -> None:
        """What the scores are added to: a channel of the positions for each key."""
        state, op = self._state, self._op
        for number, each in enumerate(op.positions):
            x = state.placed[each.tensor]
            size, multiplier = x.spread.head_channels, int(each.requant.multiplier)
            state.builder.matmul(MatrixProduct(
                name=f"{op.name}.positions{number}[{one.head}]", op="positions", macs=0,
                rows=one.rows, depth=size, columns=self.tokens,
                x=At(x, one.run * self.queries + one.start,
                     one.head * x.spread.head_words * state.arch.depth),
                out=At(buffer), weights=[weight_words(
                    state.arch, each.matrix(size), np.zeros(self.tokens, np.int32),
                    np.full(self.tokens, multiplier, np.uint16),
                )],
                fields={
                    "transform": Transform.NONE, **state.requant(each.requant),
                    "output": Output.ADD8 if number else Output.INT8,
                },
            ))

    def _values_of(self, one: Pass, buffer: Placed) -> None:
        state, op, v = self._state, self._op, self.v
        channel = self.value_channel(one.head)
        macs = self.queries * self.tokens * self.value_spread.head_channels
        state.builder.matmul(MatrixProduct(
            name=f"{op.name}.values[{one.head}]", op="values", macs=self._macs_of(one, macs),
            rows=one.rows, depth=self.tokens, columns=self.value_spread.head_channels, x=At(buffer),
            tiles=Tiles(Stationary.COLUMNS, At(v, one.run * self.tokens, channel)),
            out=At(one.out, one.out_row, one.out_channel), queue=one.queue,
            fields={"output": Output.INT8, **self._weighing(buffer)},
        ))
        if one.then is not None:
            one.then()

    def _weighing(self, buffer: Placed) -> dict[str, int]:
        """How the values of a buffer of scores are weighed: by softmax, or as the bytes say."""
        values = self._op.values
        if values is not None:
            return {"transform": Transform.NONE, **self._state.requant_single(values)}
        return {
            "transform": Transform.EXP2, "row_scale": RowScale.OPERAND, "stat_src": buffer.stat,
        }

    def _macs_of(self, one: Pass, macs: int) -> int:
        return macs * one.rows // self.queries if one.queue is None else one.queue.macs
