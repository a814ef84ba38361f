"""The finisher of LayerNorm statistics alone; the spot check that simulators agree."""

from pathlib import Path

import pytest

from tests.support.simulators import SIMULATORS
from vitrify.cosim.runner import simulate
from vitrify.rtl.units.norm_finish import NormFinish

BENCHES = Path(__file__).parent / "benches"


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_norm_finish(simulator):
    simulate(NormFinish(), "norm_finish", BENCHES / "norm_finish_bench.py", simulator=simulator)
