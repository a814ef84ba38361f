"""The row fetch: loops, addresses, tags, every wait, and the full rate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.fetch import Fetch

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
TALL = dataclasses.replace(NANO, name="tall", depth=4, width=8, lanes=4, bus_bytes=4,
                           nibble_tiles=2)
PLAIN = dataclasses.replace(
    NANO, name="plain", patterns=False, addends=False, products=False, row_sums=False)


@pytest.mark.parametrize("arch", [NANO, TALL, PLAIN], ids=lambda arch: arch.name)
def test_fetch(arch):
    simulate(Fetch(arch), f"fetch-{arch.name}", BENCHES / "fetch_bench.py", arch=arch)
