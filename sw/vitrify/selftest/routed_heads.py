"""Attention whose heads are experts: every row asks for some heads only."""

from __future__ import annotations

import numpy as np

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import MAX_DISTANCE, Opcode, Output, Region, Stationary, Stats, Transform

from .programs import Assembler, Job


def routed_heads(arch: ArchConfig, seed: int, *, rows: int = 14, choices: int = 2) -> Job:
    """Keys and values of all rows, queries of the rows that chose a head; head 0 has none."""
    a = Assembler(arch, seed)
    rng, k, size = a.rng, arch.depth, arch.bank_words
    dim, head, heads = 2 * k, k, 4
    words, width = dim // k, -(-rows // k)
    # Words in banks 0 and 1; pair words in the others.
    x, keys, values = 0, 64, size
    query, scores, mixed = size + 100, size + 130, size + 190
    residual, result, logits = 2 * size, 2 * size + 100, size + 160
    norm = dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True))
    issued = 0

    def matmul(depth: int, columns: int, **fields: int) -> int:
        nonlocal issued
        a.matmul(depth, columns, **fields)
        issued += 1
        return issued

    def back(then: int) -> int:
        return min(MAX_DISTANCE, issued + 1 - then)

    gate = rng.integers(-500, 500, (rows, heads))
    gate[:, 0] = -5000
    padded = np.zeros((rows, -(-heads // k) * k), "<i2")
    padded[:, :heads] = gate
    block = padded.reshape(rows, -1, k).transpose(1, 0, 2)
    planes = np.stack([block & 0xFF, block >> 8 & 0xFF], axis=2).astype(np.uint8)
    a.op(Opcode.LOAD, region=Region.PROGRAM, offset=a.data(planes), addr=logits,
         stride=len(block), rows=rows, words=len(block), wide=1)
    a.op(Opcode.LOAD, region=Region.INPUT, addr=x, stride=words, rows=rows, words=words)
    matmul(dim, dim, rows=rows, src_addr=x, src_stride=words, output=Output.INT16,
           dst_addr=residual, dst_stride=words, stats=Stats.NORM, stat_dst=0, epsilon=3,
           load_distance=1, post_shift=1, pre_shift=5, **norm)
    source = {"src_addr": residual, "src_stride": words, "transform": Transform.NORM,
              "stat_src": 0}
    a.op(Opcode.ROUTE, src_addr=logits, src_stride=len(block), rows=rows, experts=heads,
         choices=choices, base=0, wait_distance=1)
    made = [
        [matmul(dim, head, gain=True, gain_slot=slot, rows=rows, dst_addr=into + h * rows,
                dst_stride=1, dep_distance=back(1), **source)
         for slot, into in enumerate((keys, values))]
        for h in range(heads)
    ]
    for h in range(heads):
        own = {"expert_rows": 1, "expert": h, "rows": rows}
        matmul(dim, head, src_list=1, gain_slot=0, dst_addr=query, dst_stride=1, **source, **own)
        matmul(head, rows, src_addr=query, src_stride=1, stationary=Stationary.ROWS,
               st_addr=keys + h * rows, st_stride=1, st_distance=back(made[h][0]),
               dst_addr=scores, dst_stride=width, stats=Stats.MAX, stat_dst=40, dep_distance=1,
               pre_shift=6, **own)
        matmul(rows, head, src_addr=scores, src_stride=width, transform=Transform.EXP2,
               stat_src=40, stationary=Stationary.COLUMNS, st_addr=values + h * rows,
               st_stride=1, st_distance=back(made[h][1]), row_scale=1, dst_addr=mixed,
               dst_stride=1, dep_distance=1, **own)
        matmul(head, dim, src_addr=mixed, src_stride=1, output=Output.ADD16, gate=1, dst_list=1,
               dst_addr=result, dst_stride=words, add_addr=residual, dep_distance=1,
               post_shift=1, pre_shift=5, **own)
    a.store(addr=result, stride=words, rows=rows, words=words, wide=1, wait_distance=1)
    inputs = rng.integers(-128, 128, (words, rows, k)).astype(np.int8).view(np.uint8)
    return a.build(inputs.reshape(-1))
