# amaranth: UnusedElaboratable=no
"""Matrix unit: plain and packed, every shape of tile, against the golden kernel."""

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.config import Part
from vitrify.arch.presets import PRESETS, preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.array.matrix import MatrixUnit

BENCH = Path(__file__).parent / "benches" / "matrix_bench.py"


def _arch(name, depth, width, *, packing=False, family="none", **choices):
    return dataclasses.replace(
        preset("nano"), name=name, depth=depth, width=width, lanes=2, packing=packing,
        part=Part(name=name, family=family), **choices,
    )


ARCHES = [
    preset("nano"),                                                # K > C
    _arch("quads", 8, 16, packing=True, family="xcup", tile_quads=True),
    _arch("few_quads", 8, 4, tile_quads=True),
    _arch("wide", 4, 16, nibble_tiles=2),                          # C > K: groups of columns
    _arch("dsp48e2", 8, 16, packing=True, family="xcup"),
    _arch("thirds", 8, 16, packing=True, family="xcup", nibble_thirds=True),
    _arch("small_thirds", 4, 8, packing=True, nibble_thirds=True, stored_weights=False),
    _arch("dsp48e1", 32, 4, packing=True, family="xc7"),
]


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_matrix(arch):
    unit = MatrixUnit(arch)
    simulate(unit, "matrix", BENCH, arch=arch, options={
        "latency": unit.latency, "swap_latency": unit.swap_latency})


# A multiplier with two nibbles has no room for two bytes.
PACKABLE = [arch for arch in PRESETS.values() if not arch.sees_nibbles]


@pytest.mark.parametrize("arch", PACKABLE, ids=lambda arch: arch.name)
def test_packing_never_lengthens_by_more_than_the_split(arch):
    packed = MatrixUnit(dataclasses.replace(arch, packing=True))
    plain = MatrixUnit(dataclasses.replace(arch, packing=False))
    assert packed.latency <= plain.latency + 1
