# amaranth: UnusedElaboratable=no
"""The whole epilogue against the golden kernels."""

from pathlib import Path
from typing import Any

import pytest

from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.epilogue import Epilogue

BENCHES = Path(__file__).parent / "benches"


def _arch(name: str, depth: int, width: int, lanes: int, **choices: Any) -> ArchConfig:
    return ArchConfig(
        name=name, depth=depth, width=width, lanes=lanes, max_rows=32, banks=6, bank_words=256,
        stat_rows=128, index_entries=64, bus_bytes=4, **choices,
    )


ARCHES = [
    preset("nano"),
    _arch("more_columns_than_depth", 4, 8, 4, requant_bits=24, addends=True, nibbles=True,
          nibble_tiles=2),
    _arch("thirds", 4, 8, 2, addends=True, nibbles=True, packing=True, nibble_thirds=True),
    _arch("one_group", 16, 4, 4, requant_bits=27, experts=2, patterns=True, addends=True,
          row_sums=True),
    _arch("one_lane", 4, 16, 1, requant_bits=16),
]


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_epilogue(arch):
    simulate(Epilogue(arch), "epilogue", BENCHES / "epilogue_bench.py", arch=arch)


def test_a_slower_drain_memory():
    simulate(Epilogue(ARCHES[1], drain_latency=4), "epilogue", BENCHES / "epilogue_bench.py",
             arch=ARCHES[1], options={"drain_latency": 4}, testcase="no_bubbles")


def test_init_wrong_drain_latency():
    with pytest.raises(ValueError, match="drain_latency must be at least 2, not 1"):
        Epilogue(preset("nano"), drain_latency=1)
