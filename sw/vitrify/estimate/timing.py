"""Latencies and depths of the core's pipelines, as its units have them.

Counted from the architecture, because a machine that estimates need not have the RTL's packages;
``tests/unit/estimate`` compares every number with the units themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitrify.arch.config import ArchConfig

#: Least cycles between the starts of two passes.
MIN_PASS = 8
#: Least cycles from a row's last lane group to its first one in the next c tile.
REVISIT = 4
#: Commands inside fetch and epilogue.
SLOTS = 2
#: Instructions of one request.
CHUNK = 4
#: Cycles of silence that END waits for.
SETTLE = 16

#: An AXI burst's bound.
_PAGE = 4096
_READ = 3
_TRANSFORM = 18
_ACCUMULATOR = 4
_LANES = 12
_FINISH = 18
_CHAIN = 4
_RADIX = 4


@dataclass(frozen=True)
class Timing:
    """Fixed latencies of a core, in cycles."""

    #: From the issue of a row to the tile write that comes just after its swap.
    swap: int
    #: From the issue of a row to its visible drain row.
    drain: int
    #: From a lane group's choice to its write.
    result: int
    #: From a row's last write to its maximum, and to its LayerNorm statistics.
    row_max: int
    row_norm: int
    #: Bus beats of a word of K bytes.
    beats: int

    @classmethod
    def of(cls, arch: ArchConfig) -> Timing:
        """The latencies of ``arch``."""
        levels = (max(arch.most_groups - 1, 0).bit_length() + 1) // 2
        sums = _tree(arch.lanes)
        return cls(
            swap=_READ + _TRANSFORM - 1,
            drain=_READ + _TRANSFORM + matrix_latency(arch) + _ACCUMULATOR,
            result=1 + 2 + levels + arch.sees_nibbles + _LANES,
            row_max=sums + 4,
            row_norm=sums + 4 + _FINISH,
            beats=arch.depth // arch.bus_bytes,
        )


def matrix_latency(arch: ArchConfig) -> int:
    """Cycles from an operand to its dot products."""
    # A DSP48E1's narrower port leaves room for two packed products, and so does an ECP5's.
    nibbles = arch.nibble_tiles > 1
    packs = arch.packing or nibbles
    chain = 2 if nibbles or (arch.packing and arch.part.family == "xc7") else _CHAIN
    terms, levels = arch.depth // chain, 0
    while terms > 1:
        terms, levels = -(-terms // _RADIX), levels + 1
    return 1 + 1 + 1 + chain - 1 + packs + arch.nibble_thirds + levels


def _tree(terms: int) -> int:
    """Levels of a sum of ``terms`` values, two by two."""
    return max(terms - 1, 0).bit_length()


def unit_bytes(arch: ArchConfig) -> int:
    """Bytes that no burst splits: a word, or a longest burst if that is shorter."""
    return min(arch.depth, arch.burst_beats * arch.bus_bytes)


def burst_units(arch: ArchConfig, fifo_words: int) -> int:
    """Most units of a burst: a power of two, at most half of the FIFO."""
    unit = unit_bytes(arch)
    limit = min(
        arch.burst_beats * arch.bus_bytes // unit, fifo_words * arch.depth // unit // 2,
        _PAGE // unit,
    )
    return 1 << (limit.bit_length() - 1)


