"""Which options of an architecture go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import ArchConfig


def objection(arch: ArchConfig) -> str | None:
    """What an option lacks that is chosen, as the end of a sentence; ``None``: nothing."""
    if arch.nibble_tiles > 1 and (arch.packing or not arch.nibbles):
        return "nibble_tiles must be 1 " + (
            "with packing: a multiplier has no room for both" if arch.packing
            else "without nibbles"
        )
    thirds = arch.nibble_thirds
    for chosen, lacks, needs in (
        (thirds, not arch.nibbles, "nibble_thirds needs nibbles"),
        (thirds, not arch.packing,
         "nibble_thirds needs packing, which puts the pairs onto multipliers"),
        (thirds, getattr(arch.part, "family", "") == "xc7",
         "nibble_thirds needs a DSP48E2: the DSP48E1 of 7-series parts is too narrow"),
        (thirds, arch.lanes < 2,
         "nibble_thirds needs at least two lanes, one for each column of a pair"),
        (thirds, arch.width < 2 * arch.depth,
         f"nibble_thirds needs a width of at least twice the depth, {2 * arch.depth}"),
        (arch.tile_quads, not arch.stored_weights,
         "tile_quads needs stored_weights, whose tiles they are"),
        (arch.tile_quads, arch.width < 4,
         f"tile_quads needs a width of at least 4, not {arch.width}"),
        (arch.tile_quads, thirds, "tile_quads needs an array without nibble_thirds"),
    ):
        if chosen and lacks:
            return needs
    return None
