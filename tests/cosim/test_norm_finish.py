"""The finisher of LayerNorm statistics alone."""

from pathlib import Path

from vitrify.cosim.runner import simulate
from vitrify.rtl.units.norm_finish import NormFinish

BENCHES = Path(__file__).parent / "benches"


def test_norm_finish():
    simulate(NormFinish(), "norm_finish", BENCHES / "norm_finish_bench.py")
