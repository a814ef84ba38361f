"""Both simulators; cases for Icarus skip where it is not installed."""

import shutil

import pytest

SIMULATORS = [
    "verilator",
    pytest.param("icarus", marks=pytest.mark.skipif(
        shutil.which("iverilog") is None, reason="Icarus Verilog (apt: iverilog) is not installed"
    )),
]
