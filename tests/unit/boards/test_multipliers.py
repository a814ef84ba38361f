"""Multipliers in blocks of four, whose clock enables are few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from vitrify.arch.boards import ECP5_45, ECP5_85
from vitrify.arch.errors import BackendError
from vitrify.boards.multipliers import place_multipliers
from vitrify.boards.netlist import cell

CLOCK = 1


def _multiplier(*enables: int | str) -> dict[str, Any]:
    lines = {f"CE{i}": net for i, net in enumerate(enables)}
    if lines:
        lines |= {"CLK0": CLOCK, "RST0": "0"}
    return cell("MULT18X18D", {"A0": 2, "B0": 3, **lines}, {"P0": 4}, {})


def _matrix(enables: Sequence[tuple[int | str, ...]]) -> dict[str, dict[str, Any]]:
    """Multipliers of the matrix unit, in its order."""
    return {f"m.vitrify_slice_1.${n}_MULT18X18D_P9": _multiplier(*nets)
            for n, nets in enumerate(enables, 1)}


def _others(enables: Sequence[tuple[int | str, ...]]) -> dict[str, dict[str, Any]]:
    return {f"core.fetch.${n}_MULT18X18D_P0": _multiplier(*nets)
            for n, nets in enumerate(enables)}


def _places(cells: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    return {name: one["attributes"].get("BEL") for name, one in cells.items()}


def _blocks(cells: dict[str, dict[str, Any]]) -> list[tuple[int, set[int | str]]]:
    """Of each block that has some, how many multipliers and their enables."""
    blocks = defaultdict[tuple[int, str], list[dict[str, Any]]](list)
    for name, place in _places(cells).items():
        if place:
            column, row, bel = place.split("/")
            first = int(column[1:]) - int(bel.removeprefix("MULT18_"))
            blocks[first, row].append(cells[name])
    return [
        (len(ones), {bit for one in ones for port, (bit,) in one["connections"].items()
                     if port.startswith("CE")})
        for ones in blocks.values()
    ]


def test_they_stand_in_the_order_of_the_matrix_unit() -> None:
    names = [f"core.matrix.vitrify_slice_8x8_{s}.${n}_MULT18X18D_P9" for s in (0, 1)
             for n in (9, 10, *range(100, 126))]
    cells = {name: _multiplier() for name in reversed(names)} | _others([()])
    assert place_multipliers({"cells": cells}, ECP5_85) == len(names) == 56
    places = _places(cells)
    assert [places[name] for name in (*names[:5], *names[47:49])] == [
        "X4/Y34/MULT18_0", "X5/Y34/MULT18_1", "X8/Y34/MULT18_4", "X9/Y34/MULT18_5",
        "X13/Y34/MULT18_0", "X110/Y34/MULT18_5", "X4/Y58/MULT18_0",
    ]
    assert list(places.values())[-1] is None


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8])
def test_a_block_has_no_more_enables_than_lines(rows: int) -> None:
    """Columns of products that are added up: each row has its enable, and all a constant one."""
    cells = _matrix([("1", "1", 100 + row) for _ in range(8) for row in range(rows)])
    assert place_multipliers({"cells": cells}, ECP5_45) == 8 * rows
    blocks = _blocks(cells)
    assert all(count <= 4 and len(enables) <= 4 for count, enables in blocks)
    # Hardly a place is given away.
    assert len(blocks) <= 2 * rows + 1


def test_the_next_that_fits_fills_a_block() -> None:
    cells = _matrix([(10, 11), (12, 13), (14,), (10,), (13,)])
    place_multipliers({"cells": cells}, ECP5_45)
    assert list(_places(cells).values()) == [
        "X4/Y22/MULT18_0", "X5/Y22/MULT18_1", "X13/Y22/MULT18_0", "X8/Y22/MULT18_4",
        "X9/Y22/MULT18_5",
    ]


def test_others_stay_free_while_they_fit_anywhere() -> None:
    others = _others([("1",), (20,), (21,), (22,)])
    assert place_multipliers({"cells": _matrix([(22,)]) | others}, ECP5_45) == 1
    assert not any(_places(others).values())


@pytest.mark.parametrize("matrix", [
    [("1", 10), ("1", 11)],  # A block with places left has three of them.
    [("1", 10)] * 4,         # None has, but five may meet in an empty block.
])
def test_others_with_enables_are_fixed_where_too_many_could_meet(
    matrix: list[tuple[int | str, ...]]
) -> None:
    others = _others([("1",), (), (20,), (21,), (22,), (23,)])
    cells = _matrix(matrix) | others
    assert place_multipliers({"cells": cells}, ECP5_45) == len(matrix) + 4
    assert [bool(place) for place in _places(others).values()] == [False] * 2 + [True] * 4
    # What nextpnr still places has the constant one.
    assert all(count == 4 or len(enables | {"1"}) <= 4 for count, enables in _blocks(cells))


def test_the_last_block_of_each_row_is_taken_last() -> None:
    cells = _matrix([()] * 145)
    assert place_multipliers({"cells": cells}, ECP5_85) == 145
    places = list(_places(cells).values())
    assert (places[143], places[144]) == ("X110/Y10/MULT18_5", "X114/Y34/MULT18_0")


@pytest.mark.parametrize(("multipliers", "said"), [
    # Two of these have five enables.
    (_matrix([(n, n + 100, n + 200) for n in range(10, 29)]), "this core's 19 multipliers"),
    (_matrix([()] * 73), "this core's 73 multipliers"),
])
def test_what_no_block_takes(multipliers: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(BackendError, match=f"LFE5U-45F has 18 blocks of four .* {said}"):
        place_multipliers({"cells": multipliers}, ECP5_45)
    assert not any(_places(multipliers).values())
