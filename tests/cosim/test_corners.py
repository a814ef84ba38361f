"""Architectures at the edges of what ArchConfig allows can be built; ``python -m tests.corners``
tries many more.
"""

from __future__ import annotations

import random

import pytest

from tests.support.corners import draw
from tests.support.lint import lint
from vitrify.arch.config import ArchConfig
from vitrify.rtl.emit import emit

pytestmark = pytest.mark.slow

#: A router behind words that are longer than all its logits, and than a burst.
LONGEST = ArchConfig(
    name="longest", depth=128, width=4, lanes=2, max_rows=32, banks=6, bank_words=128,
    stat_rows=128, index_entries=128, bus_bytes=4, experts=1,
)


@pytest.mark.parametrize("arch", [
    LONGEST, *(draw(random.Random(seed), most_macs=64, most_words=1 << 12) for seed in range(2)),
], ids=["longest", "seed 0", "seed 1"])
def test_elaborates(arch, tmp_path):
    result = lint(emit(arch, tmp_path))
    assert result.returncode == 0, result.stderr[:2000]
