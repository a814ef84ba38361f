"""The gate weight's multiplier alone, in both styles."""

from pathlib import Path

import pytest

from vitrify.cosim.runner import simulate
from vitrify.rtl.units.gate_scale import GateScale

BENCHES = Path(__file__).parent / "benches"


@pytest.mark.parametrize("fabric", [False, True], ids=["dsp", "fabric"])
def test_gate_scale(fabric):
    simulate(
        GateScale(fabric=fabric), f"gate-scale-{'fabric' if fabric else 'dsp'}",
        BENCHES / "gate_scale_bench.py",
    )
