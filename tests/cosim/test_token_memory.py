"""The token memory: banks of a narrow and of a lane-wide word."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.memory import TokenMemory

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
#: One write mask bit; a number of pairs that is a power of two.
TALL = dataclasses.replace(NANO, name="tall", depth=4, width=8, lanes=4, banks=4, bank_words=16)


@pytest.mark.parametrize("arch", [NANO, TALL], ids=lambda arch: arch.name)
def test_token_memory(arch):
    simulate(TokenMemory(arch), f"token-memory-{arch.name}", BENCHES / "token_memory_bench.py",
             arch=arch)
