"""Intervals and tests of paired classifiers, against published examples and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.runtime import intervals


def table(both: int, lost: int, gained: int, neither: int) -> list[np.ndarray]:
    """Which pictures the reference and the other have right."""
    pairs = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    return list(np.array(pairs, bool).T)


def test_share():
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I: Wilson's score interval.
    assert intervals.of_share(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert intervals.of_share(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert intervals.of_share(20, 20)[1] == 1


@pytest.mark.parametrize(("cells", "interval"), [
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, table II: method 10.
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((0, 50, 0, 0), (0.8996, 1)),
    ((50, 0, 0, 0), (-0.0714, 0.0714)),
])
def test_published_intervals(cells, interval):
    found = intervals.paired(*table(*cells))
    low, high = found["difference_interval"]
    # Ours is the other minus the reference, theirs the reverse.
    assert (-high, -low) == pytest.approx(interval, abs=2e-3)
    assert found["difference"] == pytest.approx((cells[2] - cells[1]) / sum(cells))


def test_mcnemar():
    assert intervals.paired(*table(10, 0, 0, 5))["mcnemar_p"] == 1
    assert intervals.paired(*table(10, 5, 0, 5))["mcnemar_p"] == pytest.approx(2 / 32)
    assert intervals.paired(*table(10, 3, 5, 5))["mcnemar_p"] == pytest.approx(
        2 * (1 + 8 + 28 + 56) / 256
    )


def test_coverage():
    """Of 300 surveys of 336 pictures the interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(7)
    held = means = 0
    for survey in range(300):
        cells = rng.multinomial(336, [0.79, 0.025, 0.015, 0.17])
        low, high = intervals.paired(*table(*cells))["difference_interval"]
        held += low <= -0.01 <= high
        if survey < 60:
            low, high = intervals.of_mean(rng.exponential(0.01, 336))
            means += low <= 0.01 <= high
    assert 0.92 < held / 300 < 0.99
    assert means / 60 > 0.85
