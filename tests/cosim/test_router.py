"""The router: choices, gate weights and queues, for few and for all 64 experts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.router import Router

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
ARCHES = [
    NANO,
    # Every expert there may be, several words a row.
    dataclasses.replace(NANO, name="all_experts", experts=64),
    # Four logits a word; a number of experts that fills no group.
    dataclasses.replace(NANO, name="narrow", depth=4, lanes=4, bus_bytes=4, experts=13),
    # More logits in a word than there are experts; a single one of those.
    dataclasses.replace(NANO, name="wide", depth=64, experts=5),
    dataclasses.replace(NANO, name="one_expert", experts=1),
    # A word longer than all the logits that there can be.
    dataclasses.replace(NANO, name="longest", depth=128, experts=64),
]


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_router(arch):
    simulate(Router(arch), f"router-{arch.name}", BENCHES / "router_bench.py", arch=arch)
