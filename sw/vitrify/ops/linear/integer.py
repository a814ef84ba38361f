"""A linear layer in integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vitrify.golden.ops import layernorm
from vitrify.golden.ops.matmul import matmul
from vitrify.quant.evaluation import Evaluation, IntArray, operand
from vitrify.quant.graph import Layer, QOp
from vitrify.quant.tensors import Band, Int8, Norm, Requant, Rows, Statistics, Times
from vitrify.quant.wanted import WIDE
from vitrify.quant.windows import Window


@dataclass(frozen=True, kw_only=True)
class QLinear(QOp):
    """``out = requant(transform(x[rows]) @ weight.T)``, or added to ``out`` (residual).

    With ``task``, ``weight [S, out, in]``, multiplier and bias ``[S, out]`` have one set for each
    of the S tasks; the input of that name chooses.  With ``window`` it is a convolution of the
    map ``x``.
    """

    x: str
    weight: Int8
    requant: Requant
    #: Of a weight in DRAM.
    bits: int = WIDE
    norm: Norm | None = None
    #: ``x`` is multiplied by another tensor first, element by element.
    times: Times | None = None
    #: int8 image of each byte, indexed by its bit pattern.
    table: Int8 | None = None
    #: Accumulate into the int16 tensor ``out``.
    add: bool = False
    statistics: Statistics | None = None
    #: Rows of ``x`` (default: all).
    rows: Rows | None = None
    task: str | None = None
    #: For reports: the rows of the float tensor that these are.
    covers: Rows | None = None
    window: Window | None = None
    #: Consecutive rows of ``out`` that it adds to (default: all).
    into: Rows | None = None
    #: Tensor whose values it adds to (default: ``out``).
    base: str | None = None
    #: Of a part of a layer: which one.
    band: Band | None = None

    def sources(self) -> tuple[str, ...]:
        factor = (self.times.tensor,) if self.times else ()
        return (self.x, *factor, *((self.base or self.out,) if self.add else ()))

    def pairs(self) -> tuple[tuple[str, str], ...]:
        return ((self.x, self.times.tensor),) if self.times else ()

    def layers(self) -> Iterator[Layer]:
        yield Layer(self.name, self.x, self.out, self.weight, bits=self.bits)

    def divisible(self) -> Layer | None:
        whole = self.task or self.times or self.window or self.band
        if self.statistics is not None:
            # They are gathered behind all columns, by a MATMUL that reads as many bytes a row.
            columns, depth = self.weight.shape[-2:]
            whole = whole or self.norm is not None or depth < columns
        # Of copies and the like, c tiles read few words.
        sparse = 2 * np.count_nonzero(self.weight) < self.weight.size
        gathers = self.statistics is not None
        return None if whole or sparse else Layer(
            self.name, self.x, self.out, self.weight, gathers=gathers, bits=self.bits
        )

    def covered(self) -> Rows | None:
        return self.covers

    def written(self, images: int, rows: int) -> npt.NDArray[np.int64]:
        every = super().written(images, rows)
        return every if self.into is None else self.into.of(every.reshape(images, rows)).ravel()

    def rows_read(self, made: range) -> Mapping[str, range] | None:
        if self.window is not None:
            lines = self._lines(made)
            return None if lines is None else {self.x: self.window.rows_read(lines)}
        index = self._streamed(made).index
        needed = range(min(index), max(index) + 1)
        return {self.x: needed} if self.times is None else {
            self.x: needed, self.times.tensor: needed
        }

    def part(self, made: range, kept: Mapping[str, range]) -> QOp | None:
        there, result = kept[self.x], kept[self.out]
        into = Rows.span(made.start - result.start, len(made)) if made != result else None
        if self.window is not None:
            lines = self._lines(made)
            window = None if lines is None else self.window.of_lines(lines, there)
            return None if window is None else replace(self, window=window, into=into)
        if self.times is not None and kept[self.times.tensor] != there:
            return None
        own, chosen = self._streamed(made).behind(there.start), self._chosen(made)
        return replace(
            self, rows=None if own == Rows.span(0, len(there)) else own,
            covers=self.covers.then(chosen) if self.covers else chosen, into=into,
        )

    def of_band(self, names: Mapping[str, str], out: str, band: Band) -> QLinear:
        """As the part of a ``band``, with other ``names`` for tensors that it reads."""
        times = self.times
        return replace(
            self, x=names.get(self.x, self.x), out=out, band=band,
            times=times and replace(times, tensor=names.get(times.tensor, times.tensor)),
        )

    def _lines(self, made: range) -> range | None:
        """Lines of the map of a convolution's results, if rows of ``out`` are whole ones."""
        assert self.window is not None
        width = self.window.size[1]
        first = self.into.start if self.into else 0
        if first is None or self.window.maps > 1:
            return None
        start, stop = made.start - first, made.stop - first
        whole = start % width == stop % width == 0
        return range(start // width, stop // width) if whole else None

    def _chosen(self, made: range) -> Rows:
        """Rows of ``out``, counted among those that it makes."""
        first = self.into.index[0] if self.into else 0
        return Rows.span(made.start - first, len(made))

    def _streamed(self, made: range) -> Rows:
        """Rows of ``x`` that rows of ``out`` are made of."""
        chosen = self._chosen(made)
        return self.rows.then(chosen) if self.rows else chosen

    def evaluate(self, run: Evaluation) -> None:
        if self.window is not None:
            value = run.scale(self._convolved(run.read(self.x), self.window), self.requant)
            self._write(run, value)
            return
        x, statistics = run.read(self.x), run.row_statistics(self.x)
        if self.times is not None:
            x = _product(x, run.read(self.times.tensor), self.times)
        if self.rows is not None:
            every = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2])
            statistics = statistics and statistics.select(self.rows.of(every).reshape(-1))
            x = self.rows.of(x)
        count = x.shape[1]
        flat = operand(x.reshape(-1, x.shape[2]), self.norm, statistics)
        if self.task is None:
            value = run.scale(matmul(flat, self.weight), self.requant)
        else:
            operands = flat.reshape(run.images, count, -1)
            value = np.concatenate([
                run.scale(matmul(rows, self.weight[n]), _of_task(self.requant, int(n)))
                for rows, n in zip(operands, run.task(self.task), strict=True)
            ])
        self._write(run, value.reshape(run.images, count, -1))

    def _write(self, run: Evaluation, value: IntArray) -> None:
        value = run.store(
            self.out, value, table=self.table, add=self.add, rows=self.into, base=self.base
        )
        run.write(self.out, value, self.statistics)

    def _convolved(self, x: IntArray, window: Window) -> IntArray:
        """Sums ``[N, rows, out]``, tap by tap."""
        count, groups = len(self.weight), window.groups
        weight = self.weight.reshape(groups, count // groups, window.taps, -1)
        total = np.zeros((len(x), window.count, count), np.int32)
        for number, taps in enumerate(window.each(x)):
            own = weight[:, :, number]
            if groups == 1:
                part = matmul(taps.reshape(-1, taps.shape[2]), own[0])
            else:
                parts = taps.reshape(-1, groups, own.shape[2]).astype(np.float32)
                part = np.einsum("rgi,goi->rgo", parts, own.astype(np.float32)).astype(np.int32)
            total += part.reshape(total.shape)
        return total


def _product(low: IntArray, high: IntArray, times: Times) -> IntArray:
    flat = [each.reshape(-1, low.shape[2]) for each in (low, high)]
    return layernorm.product(flat[0], flat[1], times.shift, times.mantissa).reshape(low.shape)


def _of_task(requant: Requant, number: int) -> Requant:
    multiplier, bias = np.asarray(requant.multiplier), np.asarray(requant.bias)
    return replace(requant, multiplier=multiplier[number], bias=bias[number])
