"""The AXI4-Lite register file."""

from __future__ import annotations

from pathlib import Path

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.bus.csr import ControlRegisters

BENCHES = Path(__file__).parent / "benches"


def test_csr():
    arch = preset("nano")
    simulate(ControlRegisters(arch), "csr", BENCHES / "csr_bench.py", arch=arch)
