"""Multi-head attention: scores, then values, head by head, query block by query block; images
one after another.

Heads are staggered (scores of head h+1 before the values of head h), so that the row maximum is
complete when the softmax weights are read.  Keys and values stand still; queries stream.
"""

from __future__ import annotations

from dataclasses import replace

from vitrify.arch.isa import Output, Stationary, Stats, Transform
from vitrify.compiler.lowering import Lowering
from vitrify.quant.graph import QAttention, QTensor

#: Score buffers in flight.
_BUFFERS = 2


def lower(state: Lowering, op: QAttention, step: int) -> None:
    """Two MATMULs for each image, head and query block."""
    q, k, v = (state.placed[name] for name in (op.q, op.k, op.v))
    spread = q.spread
    tokens, queries = k.rows // state.images, q.rows // state.images
    if state.dies_at(op.q, step) and op.q not in (op.k, op.v):
        out = state.alias(op.out, op.q)
    else:
        out = state.place_near(op.out)
    blocks = state.row_blocks(queries, state.economy.score_blocks)
    scores = []
    for i in range(min(_BUFFERS, op.heads)):
        tensor = QTensor(f"{op.name}.scores{i}", blocks[0][1], tokens, 8, 1.0)
        placed = state.place(tensor, beside=[op.k, op.v])
        state.release_later(placed.name, step)
        base = state.shared_statistics(f"scores{i}", placed.rows)
        scores.append(replace(placed, stat=base))
    macs = state.graph.macs[op.name] // (2 * op.heads)

    def scores_of(image: int, head: int, start: int, rows: int) -> None:
        buffer = scores[head % len(scores)]
        channel = head * spread.head_words * state.arch.depth
        state.builder.matmul(
            {
                "rows": rows, **state.k_tiling(spread.head_channels),
                "transform": Transform.NONE, "output": Output.INT8,
                **state.requant(op.logits), "multiplier": int(op.logits.multiplier),
                "stationary": Stationary.ROWS, "st_addr": k.at(image * tokens, channel),
                "st_stride": k.stride,
                "stats": Stats.MAX, "stat_dst": buffer.stat,
            },
            name=f"{op.name}.scores[{head}]", op="scores", macs=macs * rows // q.rows,
            x=q, x_row=image * queries + start, x_channel=channel, out=buffer, out_row=0,
            out_channel=0, columns=tokens, stationary=k,
        )

    def values_of(image: int, head: int, start: int, rows: int) -> None:
        buffer = scores[head % len(scores)]
        channel = head * spread.head_words * state.arch.depth
        state.builder.matmul(
            {
                "rows": rows, **state.k_tiling(tokens),
                "transform": Transform.EXP2, "output": Output.INT8, "row_scale": 1,
                "stationary": Stationary.COLUMNS, "st_addr": v.at(image * tokens, channel),
                "st_stride": v.stride, "stat_src": buffer.stat,
            },
            name=f"{op.name}.values[{head}]", op="values", macs=macs * rows // q.rows,
            x=buffer, x_row=0, out=out, out_row=image * queries + start,
            out_channel=channel, columns=spread.head_channels, stationary=v,
        )

    for image in range(state.images):
        for start, rows in blocks:
            scores_of(image, 0, start, rows)
            for head in range(1, op.heads):
                scores_of(image, head, start, rows)
                values_of(image, head - 1, start, rows)
            values_of(image, op.heads - 1, start, rows)
