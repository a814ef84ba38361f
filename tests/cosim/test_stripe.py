"""Several narrow AXI ports that look like a wide one."""

import dataclasses
from pathlib import Path

import pytest

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.bus.stripe import Striper

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")


@pytest.mark.parametrize(("ports", "port_bytes"), [(2, 8), (4, 4)])
def test_stripes(ports, port_bytes):
    arch = dataclasses.replace(
        NANO, name=f"striped{ports}x{port_bytes}", depth=16, bus_bytes=ports * port_bytes,
        ports=ports,
    )
    simulate(Striper(arch), f"stripe-{arch.name}", BENCHES / "stripe_bench.py", arch=arch)
