"""What a core takes of its part: multipliers and memories counted, LUTs and flip-flops modelled.

An estimate before any tool has run: every multiplication and every deep memory of the RTL, mapped
to the primitives of the part's family.  LUTs and flip-flops: :mod:`~vitrify.arch.area`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from . import formats
from .area import ERROR, area
from .config import ArchConfig

#: Block RAM shapes (width, depth) of a family; each AMD entry is half a 36-kbit block.
_SHAPES = {
    "ecp5": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    "xc7": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    "xcup": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
}
_HALVES = {"ecp5": 1, "xc7": 2, "xcup": 2}
#: UltraRAM: width and depth.
_ULTRA = (72, 4096)
#: Resources that a core needs all of.
KINDS = ("lut", "ff", "dsp", "bram", "uram")
#: Shallower memories become LUT RAM.
_SHALLOW = 64
#: Multiplications of the LayerNorm finisher (five of Σ and Σ² by 1/D, the mean's square) and of
#: the address generators of fetch and epilogue.
_FINISH_MULTIPLIERS = 6
_ADDRESS_MULTIPLIERS = 2
#: Multiplications of the dispatcher for a PATTERN: origin of the map, k tiles of all taps.
_PATTERN_MULTIPLIERS = 2
#: Multiplications of a LayerNorm lane: mantissa, gain.
_NORM_MULTIPLIERS = 2
#: Logits that the router takes in a cycle.
_ROUTE_LANES = 4
#: A choice of the router: expert, weight, whether it is the row's first.
_CHOICE_BITS = 6 + formats.GATE_BITS + 1
_STAT_BITS = formats.RESIDUAL_BITS + formats.MEAN_FRAC + 5 + formats.RSQRT_FRAC + 1


@dataclass(frozen=True)
class MemoryUse:
    """``count`` equal memories with one read and one write port."""

    name: str
    count: int
    bits: int
    depth: int


def memories(arch: ArchConfig) -> tuple[MemoryUse, ...]:
    """Every memory that is deep enough for a block RAM."""
    word = 8 * arch.depth
    lanes = arch.lanes
    tiles = MemoryUse("tiles ahead", 1, arch.tile_bits, arch.tile_buffer)
    found = (
        MemoryUse("token memory", arch.banks, word, arch.bank_words),
        MemoryUse("partial sums", 2 * arch.width // arch.sum_columns,
                  sum(arch.stored_sums), arch.max_rows),
        *(MemoryUse(name, 1, word, words) for name, words in arch.fifo_words.items()),
        tiles,
        MemoryUse("gains", 1, word, 2 * arch.max_dim_words),
        MemoryUse("activation tables", lanes, 8, 2 * formats.TABLE_ENTRIES),
        MemoryUse("row sums", 1, formats.SOFTMAX_SUM_BITS, 2 * arch.max_rows),
        MemoryUse("row statistics in progress", 1, formats.SUM_BITS + formats.SUMSQ_BITS,
                  arch.max_rows),
        MemoryUse("row maxima in progress", 1, 8, arch.max_rows),
        # The epilogue reads as well if sums of rows divide.
        MemoryUse("row statistics", 2 if arch.row_sums else 1, _STAT_BITS, arch.stat_rows),
        MemoryUse("row indices", 2, 8 * formats.INDEX_BYTES, arch.index_entries),
        MemoryUse("reciprocal table", 1, 13, 1 << formats.RECIPROCAL_INDEX_BITS),
        MemoryUse("rsqrt table", 1, formats.RSQRT_FRAC + 1, 1 << formats.RSQRT_INDEX_BITS),
    )  # fmt: skip
    if arch.experts:
        found += (
            MemoryUse("gate weights", 1, formats.GATE_BITS + 1, arch.index_entries),
            MemoryUse("choices", 1, _CHOICE_BITS, arch.index_entries),
            MemoryUse("gate table", _ROUTE_LANES, formats.ROUTE_BITS, 1 << formats.GATE_LOGIT_FRAC),
            MemoryUse("gate reciprocal", 1, 13, 1 << formats.RECIPROCAL_INDEX_BITS),
        )  # fmt: skip
    if arch.ports > 1:
        depth = arch.outstanding * arch.stripe_beats
        found += (MemoryUse("memory ports", arch.ports, 8 * arch.bus_bytes + 1, depth),)
    return tuple(use for use in found
                 if use.depth > _SHALLOW or (use is tiles and arch.tiles_in_blocks))


def fits(arch: ArchConfig, *, surely: bool = False) -> bool | None:
    """Whether the part has enough of everything; ``None`` without a part.

    Parameters
    ----------
    surely : also if every modelled number is too low by its whole error
    """
    if arch.part.family == "none":
        return None
    found = estimate(arch)
    return all(
        use["used"] * (1 + surely * use.get("error", 0)) <= use["available"]
        for use in (found[kind] for kind in KINDS)
    )


def multipliers(arch: ArchConfig) -> dict[str, int]:
    """Hardware multipliers by their purpose."""
    # A pair of bytes is wider than a multiplier of an ECP5, and takes two of them.
    halved = arch.packing and arch.part.family != "ecp5"
    return {
        "matrix unit": arch.macs // (2 if halved else 1),
        "requantisation": arch.lanes,
        "row statistics": arch.lanes,
        "LayerNorm lanes": 0 if arch.fabric_multipliers else _NORM_MULTIPLIERS * arch.depth,
        "LayerNorm finisher": _FINISH_MULTIPLIERS,
        "addresses": _ADDRESS_MULTIPLIERS,
        "patterns": _PATTERN_MULTIPLIERS if arch.patterns else 0,
        "gate weights": (0 if arch.fabric_multipliers else arch.lanes) + 1 if arch.experts else 0,
    }


def estimate(arch: ArchConfig) -> dict[str, Any]:
    """LUTs, flip-flops, multipliers, block RAMs and UltraRAMs, each with what the part has.

    Plain data; ``error`` is the share by which a modelled number may be off.
    """
    part = arch.part
    family = part.family if part.family in _SHAPES else "xcup"
    halves, brams, urams = 0, {}, {}
    for use in memories(arch):
        if use.name == "token memory" and part.urams:
            width, depth = _ULTRA
            urams[use.name] = use.count * math.ceil(use.bits / width) * math.ceil(use.depth / depth)
            continue
        blocks = use.count * min(
            math.ceil(use.bits / width) * math.ceil(use.depth / depth)
            for width, depth in _SHAPES[family]
        )
        halves += blocks
        brams[use.name] = blocks / _HALVES[family]
    dsps, logic = multipliers(arch), area(arch)
    return {
        "part": part.name,
        "lut": {"used": logic["luts"], "available": part.luts, "error": ERROR["luts"]},
        "ff": {"used": logic["ffs"], "available": part.ffs, "error": ERROR["ffs"]},
        "dsp": {"used": sum(dsps.values()), "available": part.dsps, "by purpose": dsps},
        "bram": {
            "used": math.ceil(halves / _HALVES[family]),
            "available": part.brams,
            "by purpose": brams,
        },
        "uram": {"used": sum(urams.values()), "available": part.urams, "by purpose": urams},
    }
