"""What the matrix unit makes, and what the accumulators keep of it."""

from __future__ import annotations

from amaranth import signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import tag_layout


def dot_bits(arch: ArchConfig) -> int:
    """Signed width of one tile's dot product: K * 127 * 255 (and -128 * 255) fit.

    With ``nibble_tiles``, of either half: sums of two products each.
    """
    if arch.nibble_tiles > 1:
        return formats.NIBBLE_SHIFT + ceil_log2(arch.depth // 2)
    return 16 + 1 + ceil_log2(arch.depth)


def sums_layout(arch: ArchConfig) -> data.StructLayout:
    """C dot products of one row and tile; with ``nibble_tiles``, low and high half of each.

    With ``nibble_thirds``, lowest, highest and middle field of each pair of columns.
    """
    return data.StructLayout({
        "data": data.ArrayLayout(signed(dot_bits(arch)), arch.sums(arch.width)),
        "tag": tag_layout(arch),
    })


def drain_layout(arch: ArchConfig, columns: int) -> data.ArrayLayout:
    """Sums of ``columns`` columns over all k tiles, parts as in :func:`sums_layout`."""
    return data.ArrayLayout(signed(arch.sum_bits), arch.sums(columns))
