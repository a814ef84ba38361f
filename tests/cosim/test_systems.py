"""Published systems on the simulated core: every tensor as on golden.

A seeded few of them; ``python -m tests.systems --rtl`` runs all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.systems import DATA, judged, simulated

pytestmark = pytest.mark.slow
SEED, COUNT = 4, 3
FILES = sorted(DATA.glob("systems/*.onnx"))
SAMPLE = np.random.default_rng(SEED).choice(len(FILES), COUNT, replace=False)


@pytest.mark.parametrize("path", [FILES[i] for i in SAMPLE], ids=lambda path: path.stem)
def test_system(path: Path) -> None:
    assert simulated(judged(path)) > 0
