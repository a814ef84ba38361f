"""What a finite number of pictures says about a difference: 95 % intervals, and McNemar's test.

Two classifiers see the same pictures, so that only those count which one of them has right and the
other wrong.  Interval of the difference: Newcombe, Improved confidence intervals for the difference
between binomial proportions based on paired data, Statistics in Medicine 17 (1998), method 10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Shares = npt.NDArray[np.floating]
Right = npt.NDArray[np.bool_]

#: Of the normal distribution: 95 % lie within.
_Z = 1.959964
#: Samples of a bootstrap, and its seed: the same pictures give the same interval.
_SAMPLES, _SEED = 2000, 1


def of_share(successes: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share, ``count`` at least 1."""
    share, z2 = successes / count, _Z * _Z / count
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(reference: Right, other: Right) -> dict[str, Any]:
    """How ``other`` differs from ``reference``, from which of the same pictures each has right.

    Returns
    -------
    ``lost`` and ``gained``: pictures that only the reference, or only the other has right;
    ``difference`` of the shares and its 95 % ``difference_interval``; ``mcnemar_p``: how probable
    so uneven a split of those pictures is, or a more uneven one, if both are equally good (exact,
    two-sided).
    """
    count = len(reference)
    both = int((reference & other).sum())
    lost, gained = int((reference & ~other).sum()), int((other & ~reference).sum())
    neither = count - both - lost - gained
    first, second = both + gained, both + lost
    difference = (gained - lost) / count
    (low1, high1), (low2, high2) = of_share(first, count), of_share(second, count)
    up1, down1 = high1 - first / count, first / count - low1
    up2, down2 = high2 - second / count, second / count - low2
    spread = math.sqrt(first * (count - first)) * math.sqrt(second * (count - second))
    together = both * neither - lost * gained
    if together > 0:
        together = max(together - count / 2, 0.0)
    phi = together / spread if spread else 0.0
    below = math.sqrt(max(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    above = math.sqrt(max(0.0, up1**2 - 2 * phi * up1 * down2 + down2**2))
    return {
        "lost": lost, "gained": gained, "difference": difference,
        "difference_interval": (max(-1.0, difference - below), min(1.0, difference + above)),
        "mcnemar_p": _mcnemar(lost, gained),
    }


def of_mean(values: Shares) -> tuple[float, float]:
    """Interval of a mean by the bootstrap (percentiles, a fixed seed): no assumption of a shape."""
    rng = np.random.default_rng(_SEED)
    means = [rng.choice(values, len(values)).mean() for _ in range(_SAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _mcnemar(lost: int, gained: int) -> float:
    """Twice the smaller tail of the binomial distribution with p = 1/2."""
    count, least = lost + gained, min(lost, gained)
    tail = sum(math.comb(count, k) for k in range(least + 1))
    return min(1.0, 2 * tail / (1 << count))
