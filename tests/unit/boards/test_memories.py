"""Places of ECP5 block RAMs."""

from __future__ import annotations

import re
from statistics import fmean
from typing import Any

from vitrify.boards.ecp5 import CHIPS
from vitrify.boards.memories import place_memories
from vitrify.boards.netlist import cell
from vitrify.rtl.array import slice as matrix_slice
from vitrify.rtl.array.sums import NAME

CHIP = CHIPS["LFE5U-85F"]


def _memories(**blocks: int) -> dict[str, Any]:
    return {"cells": {
        f"{name}.0.{block}": cell("DP16KD", {}, {}, {})
        for name, count in blocks.items() for block in range(count)
    }}


def test_blocks_of_a_large_memory_are_neighbours() -> None:
    module = _memories(a=16, b=16, c=16, d=12, small=7)
    assert place_memories(module, CHIP) == {"a": 70, "b": 70, "c": 70, "d": 22}
    places = {
        name: one["attributes"].get("BEL") for name, one in module["cells"].items()
    }
    fixed = [place for place in places.values() if place]
    assert len(fixed) == len(set(fixed)) == 60
    assert [places[f"a.0.{block}"] for block in (0, 1, 4, 15)] == [
        "X4/Y70/EBR0", "X6/Y70/EBR1", "X13/Y70/EBR0", "X37/Y70/EBR3",
    ]
    # From the right end, then again from the left: the middle of the row is left.
    assert (places["b.0.0"], places["b.0.15"]) == ("X87/Y70/EBR0", "X120/Y70/EBR3")
    assert (places["c.0.0"], places["c.0.15"]) == ("X40/Y70/EBR0", "X75/Y70/EBR3")
    assert not any(places[f"small.0.{block}"] for block in range(7))


def test_sums_are_amidst_the_multipliers() -> None:
    """Banks of the token memory take the rows that come first."""
    sums = [f"core.{NAME}_{name}" for name in ("work", "drained")]
    placed = place_memories(_memories(
        **dict.fromkeys(sums, 10), **{f"bank{i}": 16 for i in range(10)}), CHIP)
    assert [placed[name] for name in sums] == [46, 46]
    row = placed[sums[0]]
    assert min(CHIP.multiplier_rows) < row < max(CHIP.multiplier_rows)
    assert sorted(placed[f"bank{i}"] for i in range(10)) == [22] * 3 + [46] + [70] * 3 + [82] * 3


def test_a_memory_larger_than_a_row_stays_free() -> None:
    module = _memories(all=49, one=48)
    assert place_memories(module, CHIP) == {"one": 70}
    assert "BEL" not in module["cells"]["all.0.0"]["attributes"]


def test_sums_that_would_crowd_a_row_are_beside_their_multipliers() -> None:
    """16 columns of 8 multipliers, four of them in the first row, whose sums take 44 blocks."""
    sums = [f"core.{NAME}_{name}" for name in ("work", "drained")]
    module = _memories(**dict.fromkeys(sums, 22), **{f"bank{i}": 16 for i in range(8)})
    blocks = CHIP.multiplier_blocks
    for i in range(128):
        place = blocks[i // 4][i % 4]
        module["cells"][f"{matrix_slice.NAME}_{i // 64}.${i % 64}_"] = cell(
            "MULT18X18D", {}, {}, {}, {"BEL": place})
    placed = place_memories(module, CHIP)
    assert sorted(placed) == [f"bank{i}" for i in range(8)]
    places = {name: one["attributes"].get("BEL", "") for name, one in module["cells"].items()}
    assert len({place for place in places.values() if place}) == 128 + 128 + 44
    distances = list[int]()
    for name in sums:
        for i in range(22):
            near = places[f"{matrix_slice.NAME}_{i // 11}.${i % 11 * 64 // 11}_"]
            (x, y), (column, row) = (
                map(int, re.findall(r"[XY](\d+)/", place))
                for place in (near, places[f"{name}.0.{i}"])
            )
            distances.append(abs(x - column) + abs(y - row))
    # Rows of block RAMs are 12 from those of multipliers.
    assert min(distances) >= 12
    assert fmean(distances) < 24
