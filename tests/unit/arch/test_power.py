"""Watts of a core by published designs."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from vitrify.arch.estimate import estimate
from vitrify.arch.power import PUBLISHED, Published, by_density, power
from vitrify.arch.presets import preset

XCUP = PUBLISHED["xcup"]


@pytest.mark.parametrize("design", XCUP, ids=lambda design: design.work)
def test_each_published_design_is_told_by_the_others(design):
    """The factor that docs/estimate.md has."""
    rest = tuple(other for other in XCUP if other is not design)
    told = by_density(rest, design.luts, design.clock_mhz)
    assert 1 / 2.15 < told.watts / design.watts < 2.15
    assert told.designs == len(XCUP) - 1


def test_watts_go_with_luts_and_clock():
    one = Published("a", "here", "part", 10_000, 100.0, 1.0)
    four = Published("b", "here", "part", 10_000, 100.0, 4.0)
    found = by_density((one, four), 20_000, 300.0)
    assert (found.least, found.watts, found.most) == pytest.approx((6, 12, 24))


def test_a_core_takes_what_its_luts_and_clock_do():
    arch = preset("kv260")
    found = power(arch)
    assert found == by_density(XCUP, estimate(arch)["lut"]["used"], arch.clock_mhz)
    slow = power(dataclasses.replace(arch, clock_mhz=arch.clock_mhz / 2))
    assert slow.watts == pytest.approx(found.watts / 2)
    sizes = [power(preset(name)).watts for name in ("reference", "kv260", "zcu102")]
    assert all(small < large for small, large in pairwise(sizes))


def test_a_family_without_published_designs():
    assert power(preset("ulx3s")) is None
