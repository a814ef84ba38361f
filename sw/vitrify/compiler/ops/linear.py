"""Linear layers: weights from the stream, every epilogue option."""

from __future__ import annotations

import numpy as np

from vitrify.arch.isa import Output, Stats, Transform
from vitrify.compiler.lowering import Lowering
from vitrify.compiler.pack import weight_words
from vitrify.quant.graph import QLinear


def lower(state: Lowering, op: QLinear, _step: int) -> None:
    """One MATMUL for each block of rows (the stream repeats with every block)."""
    x = state.placed[op.x]
    out = state.placed[op.out] if op.add else state.place_near(op.out, apart=[op.x])
    rows_x, values, transform = op.rows or (0, x.rows), state.requant(op.requant), Transform.NONE
    if op.norm is not None:
        transform = Transform.NORM if op.norm.statistics else Transform.SCALE
        values |= {"norm_shift": op.norm.shift, "norm_mantissa": op.norm.mantissa}
        if op.norm.statistics:
            values["norm_shift"] = values["norm_mantissa"] = 0
    if op.statistics is not None:
        out = state.with_statistics(out)
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
    macs = state.graph.macs[op.name]
    first, count = rows_x
    for start, rows in state.row_blocks(count):
        block = dict(values, rows=rows)
        if transform == Transform.NORM:
            block["stat_src"] = x.stat + first + start
        if op.statistics is not None:
            block["stat_dst"] = out.stat + start
        state.builder.matmul(
            block, name=op.name, op="linear", macs=macs * rows // count,
            x=x, x_row=first + start, out=out, out_row=start, out_channel=0,
            columns=out.spread.physical, weights=stream, gain=gain, table=op.table,
        )
