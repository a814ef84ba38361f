"""Rounding to trellis-coded weights: the best chains, in the places of the core."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from vitrify.arch import access, trellis
from vitrify.arch.presets import preset
from vitrify.codegen.pack import NoCodesError, tile_words
from vitrify.codegen.placement import Spread
from vitrify.quant.requant import weight_steps
from vitrify.quant.rounding import GRIDS, Moments, nearest
from vitrify.quant.trellis import TRELLIS, closest_chains, fastest

NANO, KV260 = preset("nano"), preset("kv260")


def test_the_best_of_all_chains() -> None:
    wanted = np.random.default_rng(1).normal(size=(3, 40)) * 6
    every = trellis.decode(
        np.array(list(itertools.product(range(16), repeat=3)))[:, :, None])[:, :, 0]
    errors = np.square(every[:, :, None] - wanted).sum(axis=1)
    found = closest_chains(wanted, np.zeros(wanted.shape, np.bool_))
    np.testing.assert_allclose(np.square(found - wanted).sum(axis=0), errors.min(axis=0))


def test_compiled_is_the_same() -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    rng = np.random.default_rng(2)
    wanted, padding = rng.normal(size=(64, 300)) * 5, rng.random((64, 300)) < 0.2
    wanted[padding] = 0
    # Far outside, and where two levels are as close as each other.
    wanted[~padding & (rng.random(wanted.shape) < 0.1)] *= 20
    wanted[:, :50] = np.rint(2 * wanted[:, :50]) / 2
    found = closest_chains(wanted, padding)
    np.testing.assert_array_equal(fastest()(wanted, padding), found)
    assert not found[padding].any()
    assert trellis.encode(found.astype(np.int8)) is not None


def test_less_error_than_equal_steps() -> None:
    """Of normally distributed weights, each at its best range: 0.0067 and 0.0120."""
    values = np.random.default_rng(3).normal(size=(64, 2000))
    grid = TRELLIS.for_layer(64, 1, KV260)
    coded, plain = (
        min(np.square(values - step * each.nearest(values / step)).mean() for step in steps)
        for each, steps in ((grid, np.linspace(0.2, 0.26, 7)),
                            (GRIDS[4], np.linspace(0.3, 0.4, 11)))
    )
    assert coded < 0.0070
    assert plain > 0.0115


@pytest.mark.parametrize("arch", [NANO, KV260, preset("reference")], ids=lambda arch: arch.name)
@pytest.mark.parametrize(("channels", "heads"), [(96, 1), (100, 1), (60, 3), (66, 3), (5, 5)])
def test_rounded_weights_have_codes(arch, channels: int, heads: int) -> None:
    """Of one matrix and of several, where heads begin with a word, and the last tile is not full.

    And by inputs that depend on each other, all rows having their own steps.
    """
    rng = np.random.default_rng(channels)
    x = rng.normal(size=(900, 160)) @ (np.eye(160) + 0.03 * rng.normal(size=(160, 160)))
    moments = Moments(np.rint(10 * x))
    weight = rng.normal(size=(channels, 160)) * rng.uniform(0.5, 2, channels)[:, None]
    grid, spread = TRELLIS.for_layer(channels, heads, arch), Spread(channels, heads, arch.depth)
    step = weight_steps(weight, moments, grid)
    rounded = moments.round(np.tile(weight, (2, 1)), np.tile(step, 2), grid).astype(np.int8)
    np.testing.assert_array_equal(*np.split(rounded, 2))
    tile_words(arch, spread.scatter(rounded[:channels]), nibbles=True)
    with pytest.raises(NoCodesError):
        tile_words(arch, np.full((1, 1), trellis.HIGH, np.int8), nibbles=True)
    cost = moments.cost(weight - step[:, None] * rounded[:channels]).sum()
    assert cost < moments.cost(weight - step[:, None] * nearest(weight, step, grid)).sum()
    if channels >= 60 and arch.width > 4:
        plain = GRIDS[4]
        steps = weight_steps(weight, moments, plain)
        other = moments.cost(weight - steps[:, None] * moments.round(weight, steps, plain)).sum()
        assert cost < 0.75 * other


def test_clips_at_once_are_those_one_by_one(monkeypatch) -> None:
    rng = np.random.default_rng(5)
    moments, weight = Moments(np.rint(rng.normal(size=(300, 16)) * 9)), rng.normal(size=(40, 16))
    for grid in (TRELLIS.for_layer(40, 1, KV260), GRIDS[4], replace(GRIDS[4], clips=(1.0, 0.7))):
        at_once = weight_steps(weight, moments, grid)
        monkeypatch.setattr("vitrify.quant.requant._AT_ONCE", 1)
        np.testing.assert_array_equal(weight_steps(weight, moments, grid), at_once)
        monkeypatch.undo()


def test_places() -> None:
    np.testing.assert_array_equal(access.places(6, 2, 4), [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(access.places(5, 1, 4), range(5))
