"""The reciprocal of softmax row sums alone."""

from pathlib import Path

from vitrify.cosim.runner import simulate
from vitrify.rtl.units.reciprocal import Reciprocal

BENCHES = Path(__file__).parent / "benches"


def test_reciprocal():
    simulate(Reciprocal(), "reciprocal", BENCHES / "reciprocal_bench.py")
