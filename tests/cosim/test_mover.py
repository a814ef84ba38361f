"""LOAD, STORE and LOAD_INDEX."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.mover import Mover

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
#: Shortest word (two indices in it), C > K.
SHORT = dataclasses.replace(NANO, name="short", depth=4, width=8, lanes=4, bank_words=64)


@pytest.mark.parametrize("arch", [NANO, SHORT], ids=lambda arch: arch.name)
def test_mover(arch):
    simulate(Mover(arch), f"mover-{arch.name}", BENCHES / "mover_bench.py", arch=arch)
