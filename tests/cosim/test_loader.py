"""The loader: C below, above and equal to K, tiles longer and shorter than the swap's latency.

``plain`` is without pairs of columns: nibbles become one column after the other.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.loader import Loader

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
TALL = dataclasses.replace(NANO, name="tall", depth=4, width=16, lanes=4, bus_bytes=4)
#: A word of nibbles is a column of two c tiles.
SQUARE = dataclasses.replace(TALL, name="square", width=4, nibble_tiles=2)
#: Of a word of nibbles every byte is two columns, in three words of four bytes' columns.
THIRDS = dataclasses.replace(TALL, name="thirds", packing=True, nibble_thirds=True)
#: Four columns of STORED tiles go to the array in a cycle, a word's columns in four.
QUADS = dataclasses.replace(TALL, name="quads", width=64, tile_quads=True)
#: One word is a tile.
ONE = dataclasses.replace(NANO, name="one", tile_quads=True)
PLAIN = dataclasses.replace(TALL, name="plain", stored_weights=False, patterns=False)


@pytest.mark.parametrize(("arch", "swap_latency"), [(NANO, 18), (NANO, 4), (TALL, 11), (TALL, 19),
                                                    (SQUARE, 11), (PLAIN, 11), (THIRDS, 11),
                                                    (QUADS, 19), (ONE, 11)],
                         ids=lambda value: getattr(value, "name", None))
def test_loader(arch, swap_latency):
    simulate(Loader(arch, swap_latency=swap_latency), f"loader-{arch.name}-{swap_latency}",
             BENCHES / "loader_bench.py", arch=arch, options={"swap_latency": swap_latency})
