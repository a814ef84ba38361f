"""Linear layers: weights from the stream, every epilogue option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vitrify.arch.isa import Output, Stats, Transform
from vitrify.compiler.lowering import Lowering
from vitrify.compiler.pack import weight_words
from vitrify.compiler.placement import Placed
from vitrify.quant.graph import QLinear

#: Emits the MATMUL of a block: ``(first row read, first row written, rows, first row of the
#: whole)``; the last two differ where a buffer holds one block at a time.
Emit = Callable[[int, int, int, int], None]


def lower(state: Lowering, op: QLinear, _step: int) -> None:
    """One MATMUL for each block of rows (the stream repeats with every block)."""
    x = state.placed[op.x]
    out = place_result(state, op)
    first, count = op.rows or (0, x.rows)
    emit = prepare(state, op, x, out)
    for start, rows in state.row_blocks(count):
        emit(first + start, start, rows, start)


def place_result(state: Lowering, op: QLinear) -> Placed:
    """The place of what ``op`` writes, with statistics entries if it gathers any."""
    out = state.placed[op.out] if op.add else state.place_near(op.out, apart=[op.x])
    return out if op.statistics is None else state.with_statistics(out)


def prepare(state: Lowering, op: QLinear, x: Placed, out: Placed) -> Emit:
    """Fields, parameters and stream of ``op``, ready for any block of rows."""
    values, transform = state.requant(op.requant), Transform.NONE
    if op.norm is not None:
        transform = Transform.NORM if op.norm.statistics else Transform.SCALE
        values |= {"norm_shift": op.norm.shift, "norm_mantissa": op.norm.mantissa}
        if op.norm.statistics:
            values["norm_shift"] = values["norm_mantissa"] = 0
    if op.statistics is not None:
        values |= {
            "stats": Stats.NORM, "inv_dim": op.statistics.inv_dim,
            "inv_shift": op.statistics.inv_shift, "epsilon": op.statistics.epsilon,
        }
    columns = op.weight.shape[0]
    output = Output.INT8 if not out.wide else Output.ADD16 if op.add else Output.INT16
    values |= {"transform": transform, "output": output, **state.k_tiling(x.spread.physical)}

    def per_column(value: np.ndarray | int, dtype: type) -> np.ndarray:
        full = np.broadcast_to(np.asarray(value), (columns,)).astype(dtype)
        return out.spread.scatter(full)

    weight = out.spread.scatter(x.spread.scatter(op.weight, axis=1))
    stream = weight_words(
        state.arch, weight, per_column(op.requant.bias, np.int32),
        per_column(op.requant.multiplier, np.uint16),
    )
    gain = None if op.norm is None else x.spread.scatter(op.norm.gain)
    macs, total = state.graph.macs[op.name], op.rows[1] if op.rows else state.rows(op.x)

    def emit(x_row: int, out_row: int, rows: int, row: int) -> None:
        block = dict(values, rows=rows)
        if transform == Transform.NORM:
            block["stat_src"] = x.stat + x_row
        if op.statistics is not None:
            block["stat_dst"] = out.stat + out_row
        state.builder.matmul(
            block, name=op.name, op="linear", macs=macs * rows // total,
            x=x, x_row=x_row, out=out, out_row=out_row, out_channel=0, row=row,
            columns=out.spread.physical, weights=stream, gain=gain, table=op.table,
        )

    return emit


def buffer(state: Lowering, name: str, of: str, rows: int, until: int) -> Placed:
    """A buffer for ``rows`` rows at a time of tensor ``of``, freed behind op ``until``."""
    tensor = replace(state.graph.tensors[of], name=name, rows=rows)
    wide = [placed.name for placed in state.placed.values() if placed.wide]
    placed = state.place(tensor, apart=wide)
    state.release_later(name, until)
    return placed
