"""Places of ECP5 multipliers: four of them are a block with four lines of each control signal."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vitrify.arch.config import Part
from vitrify.arch.errors import BackendError
from vitrify.rtl.array import slice as matrix_slice

from .ecp5 import chip
from .netlist import Netlist

#: Clocks, enables and resets of a block.
_LINES = 4
#: What a multiplier wants: the kind of line and the net on it.
_Wanted = set[tuple[str, int | str]]


@dataclass
class _Block:
    """Places that are left, and the nets that the multipliers on the others want."""

    places: list[str]
    wanted: _Wanted = field(default_factory=set)

    def takes(self, wanted: _Wanted) -> bool:
        """If there are lines for these nets as well."""
        kinds = Counter(kind for kind, _ in self.wanted | wanted)
        return all(count <= _LINES for count in kinds.values())


def place_multipliers(module: Netlist, part: Part) -> int:
    """Fix the multipliers of the matrix unit in their order; returns how many are fixed.

    In the order of the Verilog, products that are added up are neighbours; a multiplier for which
    a block has no line goes to the next.  nextpnr places the others, and only then looks at the
    lines: where a block that has places left could get too many enables, the multipliers with
    enables are fixed as well.

    Raises
    ------
    BackendError
        If the part has not enough blocks for all enables.
    """
    wanted = {
        name: _wanted(one) for name, one in module["cells"].items() if one["type"] == "MULT18X18D"
    }
    matrix = matrix_multipliers(module)
    enabled = [
        name for name in sorted(wanted.keys() - matrix)
        if any(kind == "CE" and isinstance(net, int) for kind, net in wanted[name])
    ]
    for fixed in (matrix, matrix + enabled):
        blocks = [_Block(list(places)) for places in chip(part).multiplier_blocks]
        places = _share(blocks, {name: wanted[name] for name in fixed})
        others = _Wanted().union(*(wanted[name] for name in wanted.keys() - fixed))
        if len(places) == len(fixed) and all(b.takes(others) for b in blocks if b.places):
            break
    else:
        raise BackendError(
            f"{part.name} has {len(blocks)} blocks of four multipliers, each with lines for "
            f"{_LINES} clock enables: this core's {len(wanted)} multipliers found no places with "
            f"their enables; choose a larger part"
        )
    for name, place in places.items():
        module["cells"][name]["attributes"]["BEL"] = place
    return len(places)


def matrix_multipliers(module: Netlist) -> list[str]:
    """Names of the matrix unit's multipliers, in the order of the Verilog: column by column."""
    found = sorted(
        (match[1], int(match[2]), name) for name, one in module["cells"].items()
        if one["type"] == "MULT18X18D"
        and (match := re.match(rf"(.*{matrix_slice.NAME}.*)\$(\d+)_", name))
    )
    return [name for *_, name in found]


def _share(blocks: list[_Block], wanted: dict[str, _Wanted]) -> dict[str, str]:
    """Each multiplier's place, in the first block that takes it; without those that none takes."""
    places = dict[str, str]()
    for name, lines in wanted.items():
        block = next((one for one in blocks if one.places and one.takes(lines)), None)
        if block is not None:
            places[name] = block.places.pop(0)
            block.wanted |= lines
    return places


def _wanted(multiplier: dict[str, Any]) -> _Wanted:
    return {
        (port[:-1], bit) for port, (bit, *_) in multiplier["connections"].items()
        if re.fullmatch(r"(CLK|CE|RST)\d", port)
    }
