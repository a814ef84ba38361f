"""Places of ECP5 block RAMs: blocks of a memory side by side, or beside their multipliers."""

from __future__ import annotations

import re
from collections import defaultdict
from statistics import fmean

from vitrify.rtl.array import sums

from .ecp5 import Chip
from .multipliers import matrix_multipliers
from .netlist import Netlist

#: A memory of this many blocks gets neighbours; so many places of each row are left to others.
_LARGE, _LEFT = 8, 4
#: Sums that would take more of a row than this are spread.
_CROWDED = 0.45

#: Of each row, the places that are left: column and name.
_Free = dict[int, list[tuple[str, str]]]


def place_memories(module: Netlist, chip: Chip) -> dict[str, int]:
    """Fix the blocks of each large memory side by side; returns each memory's row.

    nextpnr's placers scatter the blocks of a memory over the whole chip when nearly all are taken,
    and with them the wires of its address.  Memories for which no row has room stay free.  Sums of
    the matrix unit come last, however large: amidst its multipliers; or, where they would crowd a
    row, first, each block as near as can be to the multipliers of its columns, which have to be in
    their places.
    """
    memories = defaultdict[str, list[str]](list)
    for name, one in module["cells"].items():
        if one["type"] in ("DP16KD", "PDPW16KD"):
            memories[name.rsplit(".", 2)[0]].append(name)
    for blocks in memories.values():
        blocks.sort(key=lambda name: (len(name), name))
    free: _Free = {row: list(chip.ram_places) for row in chip.ram_rows}
    of_sums = [name for name in memories if sums.NAME in name]
    spread = sum(len(memories[name]) for name in of_sums) > _CROWDED * len(chip.ram_places)
    if spread:
        _spread(module, [memories.pop(name) for name in of_sums], free)
    return _rows(module, memories, free, (_LEFT, 0) if spread else (_LEFT,))


def _rows(
    module: Netlist, memories: dict[str, list[str]], free: _Free, left: tuple[int, ...]
) -> dict[str, int]:
    """From both ends of a row towards its middle, where small memories find room.

    ``left``: so many places of a row stay free; the next number only if no row has as many.
    """
    from_left, placed = dict.fromkeys(free, True), dict[str, int]()
    for memory in sorted(
        memories, key=lambda name: (sums.NAME in name, -len(memories[name]), name)
    ):
        blocks = memories[memory]
        count = len(blocks)
        rows = [row for few in left for row in free if len(free[row]) - count >= few]
        if count < _LARGE or not rows:
            continue
        row = placed[memory] = rows[0]
        taken = slice(0, count) if from_left[row] else slice(-count, None)
        for block, place in zip(blocks, free[row][taken], strict=True):
            _fix(module, block, row, place)
        del free[row][taken]
        from_left[row] = not from_left[row]
    return placed


def _spread(module: Netlist, memories: list[list[str]], free: _Free) -> None:
    """Blocks of sums beside the multipliers whose products they add up.

    Multipliers and bits of a memory are in the order of the columns.
    """
    places = [
        (int(match[1]), int(match[2])) for name in matrix_multipliers(module)
        if (match := re.match(r"X(\d+)/Y(\d+)/", module["cells"][name]["attributes"]["BEL"]))
    ]
    wanted = list[tuple[float, str, float, float]]()
    for blocks in memories:
        for i, block in enumerate(blocks):
            share = len(places) / len(blocks)
            around = places[int(i * share) : max(int((i + 1) * share), int(i * share) + 1)]
            x, y = (fmean(each) for each in zip(*around, strict=True))
            wanted.append((i / len(blocks), block, x, y))
    for _, block, x, y in sorted(wanted):
        _, row, place = min(
            (abs(int(place[0][1:]) - x) + abs(row - y), row, place)
            for row, places in free.items() for place in places
        )
        free[row].remove(place)
        _fix(module, block, row, place)


def _fix(module: Netlist, block: str, row: int, place: tuple[str, str]) -> None:
    column, name = place
    module["cells"][block]["attributes"]["BEL"] = f"{column}/Y{row}/{name}"
