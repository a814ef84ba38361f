"""``python -m bench.peers``: a peer's shape on a core of as many multipliers (docs/peers.md).

The figure of ITA (16 × 64 multipliers) is for a block of 64 tokens, 128 channels and an MLP of 512,
on streams that never stall; we did not run it.  The cycles of a block here are those by which a
network grows with each further block: what comes before and behind the blocks (patch embedding,
output) is not ITA's either.  They are estimated; ``--rtl`` simulates `reference`, which it builds,
and compares every tensor with golden.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from bench.measure import cycles_in_rtl, estimated_cycles
from bench.shapes import Shape
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.program import Program

#: Cycles of ITA's block with ideal streams, quoted: docs/peers.md says from where.
ITA_CYCLES = 13_395
TOKENS, DIM, HIDDEN = 64, 128, 512
#: Fewer blocks, whose ends still differ from those in the middle, and more.
_FEW, _MORE = 2, 6


@dataclass(frozen=True)
class Block:
    """Cycles of a block for one of ``images`` of a job, and the least there can be."""

    heads: int
    images: int
    cycles: float
    least: float


def block(
    arch: ArchConfig, heads: int, images: int = 1,
    cycles: Callable[[Shape, Program], int] = estimated_cycles,
) -> Block:
    """One of many equal blocks of ITA's shape on ``arch``."""
    few, more = (
        cycles(shape, shape.compile(arch))
        for shape in (_shape(heads, blocks, images) for blocks in (_FEW, _MORE))
    )
    macs = TOKENS * (4 * DIM * DIM + 2 * TOKENS * DIM + 2 * DIM * HIDDEN)
    return Block(heads, images, (more - few) / (_MORE - _FEW) / images, macs / arch.macs)


def _shape(heads: int, blocks: int, images: int) -> Shape:
    side = 16 * round(TOKENS**0.5)
    return Shape("ita", {
        "image": (3, side, side), "patch": 16, "prefix": 0, "dim": DIM, "heads": heads,
        "hidden": HIDDEN, "blocks": blocks, "classes": 0,
    }, batch=images)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rtl", action="store_true", help="simulate, too (minutes)")
    options = parser.parse_args()
    arch = preset("reference")
    table = Table("core", "heads", "images a job", "cycles of a block", "of ITA's", "array busy",
                  title=f"{TOKENS} tokens, {DIM} channels, MLP of {HIDDEN}; 1,024 multipliers")
    table.add_row("ITA, quoted", "1", "1", f"{ITA_CYCLES:,}", "1.000", "")
    # With half as many lanes as columns a row of the last c tile takes two cycles to leave.
    half = replace(arch, name=f"{arch.name}-{arch.width // 2}-lanes", lanes=arch.width // 2)
    rows = [(core, heads, images, "estimate", estimated_cycles) for core, heads, images in (
        (arch, 1, 1), (arch, 2, 1), (arch, 2, 2), (arch, 2, 4), (half, 1, 1), (half, 2, 1),
    )]
    if options.rtl:
        rows += [(arch, heads, 1, "RTL", cycles_in_rtl) for heads in (1, 2)]
    for core, heads, images, how, cycles in rows:
        found = block(core, heads, images, cycles)
        table.add_row(
            f"{core.name}, {how}", str(heads), str(images), f"{found.cycles:,.0f}",
            f"{found.cycles / ITA_CYCLES:.3f}", f"{found.least / found.cycles:.1%}",
        )
    Console(width=max(Console().width, 100)).print(table)


if __name__ == "__main__":
    main()
