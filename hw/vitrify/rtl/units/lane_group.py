"""What the epilogue's loops say of a lane group."""

from __future__ import annotations

from amaranth.lib import data

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Fields of the instruction that every group carries.
_CARRIED = ("output", "pre_shift", "post_shift", "multiplier", "row_scale", "activation",
            "table_slot", "stats", "inv_dim", "inv_shift", "epsilon")



def has_old_address(arch: ArchConfig) -> bool:
    """Whether old values may lie elsewhere than results."""
    return bool(arch.experts or arch.patterns or arch.addends)


def carried(arch: ArchConfig) -> dict[str, int]:
    """Bits of what every group carries of its instruction; of choices, as many as there are."""
    bits = {name: interfaces.matmul_bits(name) for name in _CARRIED}
    if not arch.row_sums:
        bits |= {"row_scale": 1, "stats": 2}
    return bits | ({"combine": 1} if arch.patterns else {})


def group_layout(arch: ArchConfig) -> data.StructLayout:
    """A lane group of one row: where it is, where it goes, what happens to it."""
    return data.StructLayout({
        "row": interfaces.index_bits(arch.max_rows),
        "group": interfaces.index_bits(arch.most_groups),
        "tile": interfaces.SEQ_BITS,                        # global c tile
        "lane_last": interfaces.index_bits(arch.lanes),     # last lane whose column exists
        "piece": interfaces.index_bits(arch.depth // arch.lanes),
        "addr": interfaces.ADDR_BITS,
        "stat_addr": interfaces.index_bits(arch.stat_rows),
        "starts": 1,            # first group of the instruction
        "begins": 1,            # first group of the row in this c tile
        "ends": 1,              # last one
        "first_tile": 1,
        "last_tile": 1,
        "tile_ends": 1,         # last group of the c tile
        "finishes": 1,          # last group of the instruction
        "last_next": 1,         # behind this row, the c tile in progress is the last one
        "weights": 1,           # bias and multipliers come from the parameter memory
        "sum_bank": 1,
        # Sums are those of nibbles; of the second c tile of a pass, which comes too early for the
        # statistics of so few rows.
        **({"nibbles": 1} if arch.sees_nibbles else {}),
        **({"second": 1, "pauses": 1} if arch.nibble_tiles > 1 else {}),
        **carried(arch),
        # Pair word of the old values, and that those of ADD8 are its high bytes.
        **({"old_addr": interfaces.ADDR_BITS} if has_old_address(arch) else {}),
        **({"old_high": 1} if arch.addends else {}),
        # Entry that divides the row.
        **({"scale_addr": interfaces.index_bits(arch.stat_rows)} if arch.row_sums else {}),
        # Gate weight (1 without `gate`), MATMULs skipped just before.
        **({"gate": formats.GATE_BITS, "skipped": interfaces.SEQ_BITS} if arch.experts else {}),
    })
