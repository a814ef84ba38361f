"""Every quoted figure is that of a result under today's conditions, or of a stated source."""

from __future__ import annotations

import re

import pytest

from bench import quote
from bench.cases import ROOT
from bench.conditions import conditions, current
from vitrify.arch.presets import preset

#: A time, a rate or a clock.
_FIGURE = re.compile(
    r"\d[\d,.]*(?: to \d[\d,.]*)? ?(?:ms|MHz|GB/s|images a second|MB/s|kB a second)\b"
)
#: What stands outside the marked tables, and where it is from.
ELSEWHERE = {
    "README.md": {},
    "docs/backend.md": {},
    "docs/boards.md": {
        "70.9 MHz": "nextpnr's report of a ULX3S build", "68.3 MHz": "and of later ones",
        "69.8 MHz": "and of one with timing-driven rip-up",
        "170 kB a second": "the line's speed",
    },
    "docs/estimate.md": {},
    "docs/experts.md": {
        "34.64 ms": "Edge-MoE's table", "25.76 ms": "UbiMoE's table", "6.47 ms": "CoQMoE's table",
        "300 MHz": "the clock of those",
    },
    "docs/numerics.md": {},
    "docs/resources.md": {
        "73.0 MHz": "nextpnr's report of `nano`", "71.2 MHz": "and of the ULX3S core",
        "70 MHz": "what that run asked for", "75.8 MHz": "and of `ulx3s-w4`",
        "73.1 MHz": "with another seed", "73.2 MHz": "of the board", "69.9 MHz": "with seed 3",
        "47 to 204 MHz": "`vitrify synth`, not placed",
        "100 MHz": "what the PYNQ-Z2 build asks for",
    },
}


@pytest.mark.parametrize("name", quote.FILES)
def test_tables_are_those_of_the_results(name):
    text = (ROOT / name).read_text()
    assert quote.MARKED.search(text)
    assert quote.quoted(text) == text, f"run `python -m bench.quote` to write {name} again"


@pytest.mark.parametrize("name", quote.FILES)
def test_no_figure_stands_alone(name):
    prose = re.sub(r"```.*?```", "", quote.MARKED.sub("", (ROOT / name).read_text()), flags=re.S)
    found = {match[0] for match in _FIGURE.finditer(prose)}
    assert found - ELSEWHERE[name].keys() == set(), "write it with bench.quote"
    assert ELSEWHERE[name].keys() - found == set(), "an exception is stale"
    assert preset("ulx3s").clock_mhz == 70


def test_a_result_under_other_conditions_is_stale():
    arch = preset("zcu102")
    fresh = {"arch": "zcu102", "conditions": conditions(arch)}
    assert current(fresh)
    for name, value in (("clock_mhz", 300.0), ("ports", 1), ("core", {})):
        assert not current({**fresh, "conditions": fresh["conditions"] | {name: value}})
    assert not current({"arch": "zcu102"})


def test_peers_are_told_apart():
    """Simulated and measured figures never stand beside each other without a word about it."""
    text = quote.m3vit()
    assert "never saw a board" in text
    assert "measured on that board at 300 MHz" in text
    for name, value in quote.M3VIT_PEERS.items():
        assert f"{name} {value:.1f} ms" in text
