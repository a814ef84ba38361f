"""Trellis-coded weights: levels, codes, and who has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitrify.arch import trellis
from vitrify.arch.presets import PRESETS, preset

NANO = preset("nano")


def test_codes_come_back() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3, 2, 64, 8))
    weights = trellis.decode(codes)
    found = trellis.encode(weights)
    assert found is not None
    np.testing.assert_array_equal(found, codes)
    assert trellis.spans(weights)


def test_a_chain_by_hand() -> None:
    """State 0, behind an odd code 1, behind two 3, behind an odd and an even one 2."""
    codes = np.array([[5], [7], [0], [15]])
    rows = trellis.LEVELS[0][5], trellis.LEVELS[1][7], trellis.LEVELS[3][0], trellis.LEVELS[2][15]
    np.testing.assert_array_equal(trellis.decode(codes)[:, 0], rows)


def test_levels() -> None:
    """Every state has 16, among them a zero: columns that are padding have a code in all."""
    assert trellis.LEVELS.shape == (trellis.STATES, 16)
    assert (np.diff(trellis.LEVELS, axis=1) > 0).all()
    assert (trellis.LEVELS == 0).any(axis=1).all()
    most = 1 << trellis.LEVEL_BITS - 1
    assert -most <= trellis.LOW < trellis.HIGH < most


def test_not_every_weight_has_a_code() -> None:
    some = trellis.decode(np.zeros((16, 8), int))
    for wrong in (trellis.HIGH, trellis.HIGH + 1, trellis.LOW - 1):
        other = some.copy()
        other[0, 0] = wrong
        assert trellis.encode(other) is None


def test_who_has_them() -> None:
    """Not cores that multiply four bits: `kv260-w4`, `ulx3s-w4`."""
    assert {name for name, arch in PRESETS.items() if arch.trellis_codes} == {
        "nano", "reference", "pynq-z2", "kv260", "zcu102"}
    assert not replace(NANO, nibble_tiles=2).trellis_codes
    without = replace(NANO, trellis=False)
    assert without.hash != NANO.hash
    # Without nibbles there are none, whatever the option says.
    bare = replace(NANO, nibbles=False)
    assert bare.hash == replace(bare, trellis=False).hash

