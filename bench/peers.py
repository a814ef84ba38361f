"""``python -m bench.peers``: a peer's shape on a core of as many multipliers (docs/peers.md).

The figure of ITA (16 × 64 multipliers) is for a block of 64 tokens, 128 channels and an MLP of 512,
on streams that never stall; we did not run it.  The cycles of a block here are those by which a
network grows with each further block: what comes before and behind the blocks (patch embedding,
output) is not ITA's either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from tests.support.synthetic import vision_transformer
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.estimate import estimate

#: Cycles of ITA's block with ideal streams, quoted: docs/peers.md says from where.
ITA_CYCLES = 13_395
TOKENS, DIM, HIDDEN = 64, 128, 512
#: Fewer blocks, whose ends still differ from those in the middle, and more.
_FEW, _MORE = 2, 6


@dataclass(frozen=True)
class Block:
    """Estimated cycles of a block for one of ``images`` of a job, and the least there can be."""

    heads: int
    images: int
    cycles: float
    least: float


def block(arch: ArchConfig, heads: int, images: int = 1) -> Block:
    """One of many equal blocks of ITA's shape on ``arch``."""
    few, more = (_cycles(arch, heads, blocks, images) for blocks in (_FEW, _MORE))
    macs = TOKENS * (4 * DIM * DIM + 2 * TOKENS * DIM + 2 * DIM * HIDDEN)
    return Block(heads, images, (more - few) / (_MORE - _FEW) / images, macs / arch.macs)


def _cycles(arch: ArchConfig, heads: int, blocks: int, images: int) -> int:
    side = 16 * round(TOKENS**0.5)
    graph = vision_transformer(
        image=(3, side, side), patch=16, prefix=0, dim=DIM, heads=heads, hidden=HIDDEN,
        blocks=blocks, classes=0,
    )
    return estimate(compile_graph(graph, arch, batch=images)).cycles


def main() -> None:
    """Print the comparison."""
    arch = preset("reference")
    table = Table("core", "heads", "images a job", "cycles of a block", "of ITA's", "array busy",
                  title=f"{TOKENS} tokens, {DIM} channels, MLP of {HIDDEN}; 1,024 multipliers")
    table.add_row("ITA, quoted", "1", "1", f"{ITA_CYCLES:,}", "1.000", "")
    # As many lanes as columns: the last c tile then leaves the accumulators as fast as it comes.
    wide = replace(arch, name=f"{arch.name}-{arch.width}-lanes", lanes=arch.width)
    for core, heads, images in (
        (arch, 1, 1), (arch, 2, 1), (arch, 2, 2), (arch, 2, 4), (wide, 1, 1), (wide, 2, 1),
    ):
        found = block(core, heads, images)
        table.add_row(
            f"{core.name}, estimate", str(heads), str(images), f"{found.cycles:,.0f}",
            f"{found.cycles / ITA_CYCLES:.3f}", f"{found.least / found.cycles:.1%}",
        )
    Console(width=max(Console().width, 100)).print(table)


if __name__ == "__main__":
    main()
