"""Products of two activations: one streams, the other stands still, head by head."""

from __future__ import annotations

from vitrify.arch.isa import Output, RowScale, Stationary, Stats, Transform
from vitrify.codegen.lowering import Lowering
from vitrify.codegen.placement import Placed
from vitrify.codegen.product import At, MatrixProduct, Tiles
from vitrify.quant.tensors import Band

from .integer import QProduct


def lower(state: Lowering, op: QProduct, _step: int) -> None:
    """For each image, run of rows, head and block of rows one MATMUL."""
    x, y = state.placed[op.x], state.placed[op.y]
    out = state.place_near(op.out, apart=[op.x])
    if op.logits or op.sums:
        out = state.with_statistics(out)
    runs = state.images * op.row_groups
    count = op.rows.count if op.rows else _rows(op, x, runs)
    first, ahead = ((rows.index[0] if rows else 0) for rows in (op.rows, op.into))
    depth, columns = _columns(op, x), _columns(op, out)
    kind = Stationary.ROWS if op.rows_y else Stationary.COLUMNS
    band = op.band or Band(0, 0, count)
    macs = state.graph.macs[op.name] // (runs * op.heads * band.total)
    for run in range(runs):
        for head in range(op.heads):
            for start, rows in state.row_blocks(count):
                to = _at(op, out, runs, run, head, ahead + start)
                source = _at(op, x, runs, run, head, first + start)
                fields: dict[str, int] = {"output": Output.INT16 if op.sums else Output.INT8}
                divisor = None
                if op.softmax:
                    fields |= {
                        "transform": Transform.EXP2, "row_scale": RowScale.OPERAND,
                        "stat_src": x.stat + source.row,
                    }
                elif op.divisor is not None:
                    divisor = _at(op, state.placed[op.divisor], runs, run, head, start)
                    fields |= {
                        "transform": Transform.NONE, "row_scale": RowScale.STATISTIC,
                        "stat_src": divisor.tensor.stat + divisor.row,
                    }
                else:
                    fields |= {
                        "transform": Transform.NONE, **state.requant_single(op.requant(head)),
                    }
                if op.logits or op.sums:
                    stats = Stats.SUM if op.sums else Stats.MAX
                    fields |= {"stats": stats, "stat_dst": out.stat + to.row}
                row = to.row + band.start
                fresh = min(rows, max(0, row + rows - band.done)) if op.band else rows
                state.builder.matmul(MatrixProduct(
                    name=f"{op.name}[{head}]", op="product", macs=macs * fresh, rows=rows,
                    depth=depth, columns=columns, x=source, row=row,
                    tiles=Tiles(kind, _at(op, y, runs, run, head, 0)), out=to, fields=fields,
                    divisor=divisor,
                ))


def _rows(op: QProduct, x: Placed, runs: int) -> int:
    """Rows of the matrix of a run and head."""
    return x.rows // (runs * (op.heads if x.name in op.stacked else 1))


def _columns(op: QProduct, x: Placed) -> int:
    """Its columns."""
    return x.spread.physical if x.name in op.stacked else x.spread.head_channels


def _at(op: QProduct, x: Placed, runs: int, run: int, head: int, start: int) -> At:
    """Where the rows from ``start`` on are of the matrix of a run and head."""
    rows = _rows(op, x, runs)
    if x.name in op.stacked:
        return At(x, (run * op.heads + head) * rows + start)
    channel = head * x.spread.head_words * x.spread.depth
    return At(x, run * rows + start, channel)
