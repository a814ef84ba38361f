"""The register between a stream's two sides alone."""

from pathlib import Path

from amaranth import unsigned

from vitrify.cosim.runner import simulate
from vitrify.rtl.lib.skid import Skid

BENCHES = Path(__file__).parent / "benches"


def test_skid():
    simulate(Skid(unsigned(16)), "skid", BENCHES / "skid_bench.py")
