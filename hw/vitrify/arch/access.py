"""Where the operands and results of a MATMUL lie in the token memory.

One description for everybody who has to know: the golden machine reads and writes by it, the
estimator and the checks of a program derive banks and overlaps from it, and the core's address
generators follow the same loops: for c tile, for k tile, for row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from . import memmap
from .config import ArchConfig
from .isa import Instruction, Output, Stationary
from .modes import NARROW_OUTPUTS, WIDE_TRANSFORMS

Index = npt.NDArray[np.int64]
#: Stands for a word that is not read: zeros take its place.
ZEROS = -1


def places(channels: int, groups: int, depth: int) -> Index:
    """Place in a row of each channel of a tensor; each of ``groups`` equal parts begins a word."""
    part, channel = np.divmod(np.arange(channels), channels // groups)
    return part * (-(-channels // groups // depth) * depth) + channel


@dataclass(frozen=True)
class Taps:
    """Rows as output pixels of a map whose pixels are the rows of a tensor.

    Row ``r`` is output pixel ``(r // out_width, r % out_width)``.  Tap ``(ty, tx)`` of output pixel
    ``(y, x)`` is map pixel ``(y * stride + ty + origin_y, x * stride + tx + origin_x)``.
    """

    taps_y: int
    taps_x: int
    stride: int
    height: int
    width: int
    out_width: int
    origin_y: int
    origin_x: int

    def pixels(self, rows: int) -> Index:
        """Row of the tensor for every output pixel and tap, ``[rows, taps]``; ``ZEROS`` outside."""
        out_y, out_x = np.divmod(np.arange(rows, dtype=np.int64), self.out_width)
        tap_y, tap_x = np.divmod(np.arange(self.taps_y * self.taps_x), self.taps_x)
        y = out_y[:, None] * self.stride + tap_y + self.origin_y
        x = out_x[:, None] * self.stride + tap_x + self.origin_x
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return np.where(inside, y * self.width + x, ZEROS)


@dataclass(frozen=True)
class Access:
    """Words of K bytes (pairs of them when ``wide``) that belong to rows of a tensor.

    ``width`` words of every row, or with ``taps`` of every tap; c tile ``c`` begins ``step`` words
    further on for every ``group`` c tiles before it.
    """

    base: int
    stride: int
    rows: int
    width: int
    wide: bool = False
    #: First entry of the row-index list that names the rows (or the pixels).
    list_base: int | None = None
    taps: Taps | None = None
    step: int = field(default=0, kw_only=True)
    group: int = field(default=1, kw_only=True)

    def end(self, c_tiles: int = 1, rows: int | None = None) -> int:
        """Address behind the last word that ``c_tiles`` c tiles touch in all rows, or in fewer."""
        last = (self.rows if rows is None else rows) - 1
        if self.taps is not None and rows is None:
            last = max(0, int(self.taps.pixels(self.rows).max()))
        return self.base + last * self.stride + int(self.row_words(c_tiles - 1)[-1]) + 1

    def row_ids(self, index: Index | None = None) -> Index:
        """Rows of the tensor, ``[rows, taps or 1]``; ``index``: the row-index memory."""
        ids = (
            np.arange(self.rows, dtype=np.int64)[:, None] if self.taps is None
            else self.taps.pixels(self.rows)
        )
        if self.list_base is None:
            return ids
        if index is None:
            raise ValueError("the rows are picked by a list that is not given")
        return np.where(ids < 0, ZEROS, index[self.list_base + np.maximum(ids, 0)])

    def row_words(self, c: int = 0) -> Index:
        """Words within a row that c tile ``c`` needs, ``[width]``."""
        return c // self.group * self.step + np.arange(self.width, dtype=np.int64)

    def words(self, c: int = 0, index: Index | None = None) -> Index:
        """Word addresses ``[rows, taps * width]`` for c tile ``c``; ``ZEROS``: not read."""
        ids = self.row_ids(index)[:, :, None]
        address = self.base + ids * self.stride + self.row_words(c)
        return np.where(ids < 0, ZEROS, address).reshape(self.rows, ids.shape[1] * self.width)


def repetitions(op: Instruction) -> list[Instruction]:
    """The MATMULs, one behind the other, that one with ``repeats`` stands for."""
    if not op.repeats:
        return [op]
    steps = {"src_addr": op.src_step, "st_addr": op.st_step, "dst_addr": op.dst_step,
             "add_addr": op.add_step, "stat_src": op.stat_src_step, "stat_dst": op.stat_dst_step}
    return [
        Instruction(op.opcode, {
            **op.values, "repeats": 0,
            **{name: op.values[name] + i * step for name, step in steps.items()},
        })
        for i in range(op.repeats + 1)
    ]


def streamed(op: Instruction) -> Access:
    """Rows that stream past the tiles; one word for every k tile."""
    taps = None
    if op.tapped:
        taps = Taps(op.taps_y, op.taps_x, op.tap_stride, op.map_height, op.map_width,
                    op.out_width, op.origin_y, op.origin_x)
    return Access(
        op.src_addr, op.src_stride, op.rows, op.tap_k if op.tapped else op.k_tiles,
        op.transform in WIDE_TRANSFORMS, op.src_list_base if op.src_list else None, taps,
        step=op.k_step, group=op.c_group,
    )


def stored_words(arch: ArchConfig, op: Instruction) -> int:
    """Pair words of all tiles of a MATMUL whose weights are STORED."""
    return op.c_tiles * op.k_tiles * arch.tile_pairs(op.nibbles)


def stationary(arch: ArchConfig, op: Instruction) -> Access | None:
    """Rows that make the stationary tiles, all c tiles at once; ``None``: none are read."""
    depth, columns = shape(arch, op)
    match op.stationary:
        case Stationary.ROWS:
            return Access(op.st_addr, op.st_stride, columns, memmap.words(arch, depth))
        case Stationary.COLUMNS:
            return Access(op.st_addr, op.st_stride, depth, memmap.words(arch, columns))
        case Stationary.STORED:
            return Access(op.st_addr, 0, 1, stored_words(arch, op), wide=True)
    return None


def result(arch: ArchConfig, op: Instruction) -> Access:
    """Rows that are written, all c tiles at once."""
    return Access(
        op.dst_addr, op.dst_stride, op.rows, memmap.words(arch, shape(arch, op)[1]),
        op.output not in NARROW_OUTPUTS, op.dst_list_base if op.dst_list else None,
    )


def old_values(arch: ArchConfig, op: Instruction) -> Access | None:
    """Rows that ADD16 or ADD8 combine the result with (without ``gate``, whose rows say where)."""
    if op.output not in (Output.ADD16, Output.ADD8):
        return None
    written = result(arch, op)
    if not op.add_source:
        return written
    return Access(op.add_addr, op.add_stride, op.rows, written.width, written.wide)


def shape(arch: ArchConfig, op: Instruction) -> tuple[int, int]:
    """Depth of the dot products and columns of the result."""
    width = arch.tile_width(op.nibbles)
    return (op.k_tiles - 1) * arch.depth + op.k_last, (op.c_tiles - 1) * width + op.c_last


def valid_bytes(arch: ArchConfig, op: Instruction) -> npt.NDArray[np.bool_]:
    """Which of the ``k_tiles * K`` bytes of a streamed row count; the others are zeros."""
    width = op.tap_k if op.tapped else op.k_tiles
    one = np.arange(width * arch.depth) < (width - 1) * arch.depth + op.k_last
    return np.tile(one, op.k_tiles // width)
