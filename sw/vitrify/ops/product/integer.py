"""Products of two activations in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.golden.ops import softmax
from vitrify.golden.ops.matmul import matmul
from vitrify.quant.evaluation import Evaluation, IntArray
from vitrify.quant.graph import QOp
from vitrify.quant.tensors import Band, Requant, Rows


@dataclass(frozen=True, kw_only=True)
class QProduct(QOp):
    """``out = requant(X @ Y)`` of int8 tensors in each head of each of ``row_groups`` runs of rows.

    The matrices of the heads lie side by side, or, of tensors that are ``stacked``, one below the
    other.  ``rows_y``: the rows of y are columns of Y.  ``requants``: one for each head, or for
    all.  With ``softmax``, x holds logits, Z is ``softmax(X) @ Y`` and has the step of y.  With
    ``divisor``, rows are divided by those of that tensor, stacked sums of int16.
    """

    x: str
    y: str
    heads: int
    rows_y: bool
    requants: tuple[Requant, ...] = ()
    row_groups: int = 1
    stacked: frozenset[str] = frozenset()
    softmax: bool = False
    #: Softmax reads the result: the largest of each row is gathered.
    logits: bool = False
    divisor: str | None = None
    #: Another product divides by the result, int16: each row's sum is gathered.
    sums: bool = False
    #: Consecutive rows of ``x``, and of ``out``, if it makes some only.
    rows: Rows | None = None
    into: Rows | None = None
    #: Of a part of its rows: which one.
    band: Band | None = None

    @property
    def by_row(self) -> bool:
        """Whether every row of the result is made of the same row of x, and of y."""
        apart = self.stacked.isdisjoint((self.x, self.out))
        return apart and self.row_groups == 1 and self.divisor is None

    def sources(self) -> tuple[str, ...]:
        return (self.x, self.y, *([self.divisor] if self.divisor else []))

    def streamed(self) -> tuple[str, ...]:
        return (self.x,)

    def stationary(self) -> tuple[str, ...]:
        return (self.y,)

    def groups(self) -> Mapping[str, int]:
        each = {self.x, self.y, self.out} - self.stacked
        return dict.fromkeys(sorted(each), self.heads)

    def rows_read(self, made: range) -> Mapping[str, range] | None:
        return {self.x: self._streamed(made)} if self.by_row else None

    def _streamed(self, made: range) -> range:
        """Rows of ``x`` that rows of ``out`` are made of."""
        begin, to = ((rows.index[0] if rows else 0) for rows in (self.rows, self.into))
        return range(made.start + begin - to, made.stop + begin - to)

    def part(self, made: range, kept: Mapping[str, range]) -> QProduct | None:
        if not self.by_row:
            return None
        own, to = (
            None if there == some else Rows.span(some.start - there.start, len(some))
            for some, there in ((self._streamed(made), kept[self.x]), (made, kept[self.out]))
        )
        return replace(self, rows=own, into=to)

    def written(self, images: int, rows: int) -> npt.NDArray[np.int64]:
        every = super().written(images, rows)
        return every if self.into is None else self.into.of(every.reshape(images, rows)).ravel()

    def of_band(self, names: Mapping[str, str], out: str, band: Band) -> QProduct:
        """As the part of a ``band``, with other ``names`` for tensors that it reads."""
        return replace(self, x=names.get(self.x, self.x), out=out, band=band)

    def requant(self, head: int) -> Requant:
        """That of a head."""
        return self.requants[head % len(self.requants)]

    def evaluate(self, run: Evaluation) -> None:
        x, y = (self._matrices(run, name) for name in (self.x, self.y))
        divisors = None if self.divisor is None else self._matrices(run, self.divisor)
        z = np.stack([
            self._one(run, x[at], y[at], at[1], None if divisors is None else divisors[at])
            for at in np.ndindex(x.shape[:2])
        ])
        z = z.reshape(*x.shape[:2], *z.shape[1:])
        width = z.shape[3]
        if self.out not in self.stacked:
            z, width = z.swapaxes(1, 2), width * self.heads
        run.write(self.out, run.put(self.out, z.reshape(run.images, -1, width), self.into))

    def _one(
        self, run: Evaluation, x: IntArray, y: IntArray, head: int, divisor: IntArray | None
    ) -> IntArray:
        tiles = y if self.rows_y else y.T
        if self.softmax:
            return run.average(x, tiles)
        acc = matmul(x, tiles)
        if divisor is not None:
            return run.divide(acc, softmax.row_sum(divisor.sum(axis=1, dtype=np.int64)))
        return run.store(self.out, run.scale(acc, self.requant(head)))

    def _matrices(self, run: Evaluation, name: str) -> IntArray:
        """A tensor as ``[N * row_groups, heads, rows, columns]``."""
        value = run.read(name)
        if self.rows is not None and name == self.x:
            value = self.rows.of(value)
        runs = len(value) * self.row_groups
        if name in self.stacked:
            return value.reshape(runs, self.heads, -1, value.shape[2])
        return value.reshape(runs, -1, self.heads, value.shape[2] // self.heads).swapaxes(1, 2)
