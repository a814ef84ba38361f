"""Transposition as a product: the rows of an identity matrix stream past tokens that stand still.

A word of channels at a time becomes as many rows.  Those that are normalised pass through a buffer
of int16, from where a second product, with the identity as weights, brings them back to bytes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitrify.arch.isa import Output, Stationary, Stats, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.pack import weight_words
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At, MatrixProduct, Tiles
from vitrify.quant.tensors import QTensor

from .integer import ONE, QTranspose


def lower(state: Lowering, op: QTranspose, step: int) -> None:
    """For each image, run of rows and word of channels one MATMUL, or one for each head of it."""
    _Emitter(state, op, step).emit()


class _Emitter:
    """Emits one transposition."""

    def __init__(self, state: Lowering, op: QTranspose, step: int) -> None:
        self._state, self._op, depth = state, op, state.arch.depth
        self._x = state.placed[op.x]
        self._rows = self._x.rows // (state.images * op.row_groups)
        self._unit = state.place(QTensor(f"{op.name}.unit", depth, depth, 8, 1.0), beside=[op.x])
        self._unit_matrix = ONE * np.eye(depth, dtype=np.int8)
        state.release_later(self._unit.name, step)
        state.load_constant(self._unit, self._unit_matrix)
        self._wide = self._buffer(step) if op.norm is not None else None
        out = state.place_near(op.out)
        self._out = state.with_statistics(out) if op.logits else out

    def _buffer(self, step: int) -> Placed:
        """A word of channels as int16 rows, and their statistics."""
        state, depth = self._state, self._state.arch.depth
        placed = state.place(QTensor(f"{self._op.name}.wide", depth, self._rows, 16, 1.0))
        state.release_later(placed.name, step)
        return state.with_statistics(placed)

    def emit(self) -> None:
        """All words of all runs."""
        x, depth = self._x.spread, self._state.arch.depth
        for run in range(self._state.images * self._op.row_groups):
            for first in range(0, x.channels, x.head_channels):
                channel = first // x.head_channels * x.head_words * depth
                for start in range(0, x.head_channels, depth):
                    count = min(depth, x.head_channels - start)
                    tiles = At(self._x, run * self._rows, channel + start)
                    self._word(tiles, count, run * x.channels + first + start)

    def _word(self, x: At, count: int, row: int) -> None:
        """``count`` channels of a run to the rows from ``row`` on."""
        state, op, out = self._state, self._op, self._out
        if op.norm is not None and self._wide is not None:
            wide = self._wide
            self._transposed(x, count, At(wide), self._rows, {
                "output": Output.INT16, **state.requant_single(op.norm.wide),
                **state.gather(op.norm.statistics, wide, 0),
            })
            self._normalised(wide, count, row)
            return
        fields = {"output": Output.INT8, **state.requant_single(op.requant)}
        if op.logits:
            fields |= {"stats": Stats.MAX, "stat_dst": out.stat + row}
        columns, words = out.spread.head_channels, out.spread.head_words
        for head in range(out.spread.heads):
            part = replace(x, row=x.row + head * columns)
            to = At(out, row, head * words * state.arch.depth)
            self._transposed(part, count, to, columns, fields)

    def _transposed(
        self, x: At, count: int, out: At, columns: int, fields: dict[str, int]
    ) -> None:
        self._state.builder.matmul(MatrixProduct(
            name=self._op.name, op="transpose", macs=0, rows=count, depth=count, columns=columns,
            x=At(self._unit), tiles=Tiles(Stationary.ROWS, x), out=out,
            fields={"transform": Transform.NONE, **fields},
        ))

    def _normalised(self, wide: Placed, count: int, row: int) -> None:
        """Rows of the buffer to bytes, word by word."""
        state, op, depth = self._state, self._op, self._state.arch.depth
        assert op.norm is not None
        for start in range(0, self._rows, depth):
            size = min(depth, self._rows - start)
            multiplier = np.full(size, int(op.requant.multiplier), np.uint16)
            weights = weight_words(
                state.arch, self._unit_matrix[:size, :size], np.zeros(size, np.int32), multiplier
            )
            state.builder.matmul(MatrixProduct(
                name=op.name, op="transpose", macs=0, rows=count, depth=size, columns=size,
                x=At(wide, 0, start), out=At(self._out, row, start), weights=[weights],
                gain=np.full(depth, op.norm.gain, np.uint8),
                fields={
                    "transform": Transform.NORM, "output": Output.INT8,
                    "stat_src": wide.stat, **state.requant(op.requant),
                },
            ))
