"""ITA's block on `reference`, as docs/peers.md has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.peers import ITA_CYCLES, block
from vitrify.arch.presets import preset

PAGE = (Path(__file__).parents[3] / "docs" / "peers.md").read_text()


@pytest.mark.parametrize(("heads", "images"), [(1, 1), (2, 1)])
def test_the_page_has_what_the_command_finds(heads, images):
    found = block(preset("reference"), heads, images)
    row = (f"| `reference`, estimate | {heads} | {images} | {found.cycles:,.0f} | "
           f"{found.cycles / ITA_CYCLES:.3f} | {found.least / found.cycles:.1%}")
    assert row.replace("%", " %") in PAGE
    assert found.least == 13_312
    assert re.search(r"\| 1 \| 1 \| 13,395 \|", PAGE)
