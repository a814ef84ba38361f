"""Few pins for a core with hundreds of ports: registers on a scan chain around it.

A core has more ports than a package has pads, so alone it cannot be placed as on a board.
Place and route without pads (``--out-of-context``) is no way out: nextpnr then leaves the clock off
the global network, and ten thousands of clock inputs fill the fabric's wires.
"""

from __future__ import annotations

from typing import Any

from .netlist import cell

#: What stays a pin.
PINS = ("clk", "rst")
SCAN_IN, SCAN_OUT = "scan_in", "scan_out"
_XOR = "0110" * 4  # LUT4: A ^ B


def behind_scan_chain(module: dict[str, Any]) -> tuple[int, int]:
    """Replace the ports of a flat ECP5 netlist by two chains of registers.

    Inputs come from a shift register; each output is registered and xored into the next, so that
    nothing can be removed and every path of the core starts and ends in a register.

    What stays of the ports are :data:`PINS`, :data:`SCAN_IN` and :data:`SCAN_OUT`.

    Returns
    -------
    How many inputs and how many outputs became registers.
    """
    ports, cells, names = module["ports"], module["cells"], module["netnames"]
    used = max(bit for net in names.values() for bit in net["bits"] if isinstance(bit, int))
    clock, = ports["clk"]["bits"]

    def new_net() -> int:
        nonlocal used
        used += 1
        return used

    def register(name: str, source: int | str, target: int) -> None:
        cells[name] = cell(
            "TRELLIS_FF", {"CLK": clock, "DI": source, "LSR": "0"}, {"Q": target},
            # A blank at the end: text, though it looks like a binary number.
            {"CEMUX": "1 ", "CLKMUX": "CLK", "GSR": "DISABLED", "LSRMUX": "LSR", "REGSET": "RESET",
             "SRMODE": "LSR_OVER_CE"},
        )

    inputs = _bits(ports, "input")
    outputs = _bits(ports, "output")
    pins = {name: ports[name] for name in PINS}
    previous: int | str = new_net()
    pins[SCAN_IN] = {"direction": "input", "bits": [previous]}
    for index, bit in enumerate(inputs):
        register(f"scan.in.{index}", previous, bit)
        previous = bit
    previous = "0"
    for index, bit in enumerate(outputs):
        mixed, kept = new_net(), new_net()
        cells[f"scan.mix.{index}"] = cell(
            "LUT4", {"A": bit, "B": previous, "C": "0", "D": "0"}, {"Z": mixed}, {"INIT": _XOR},
        )
        register(f"scan.out.{index}", mixed, kept)
        previous = kept
    pins[SCAN_OUT] = {"direction": "output", "bits": [previous]}
    module["ports"] = pins
    for name in (SCAN_IN, SCAN_OUT):
        names[name] = {"hide_name": 0, "bits": pins[name]["bits"], "attributes": {}}
    return len(inputs), len(outputs)


def _bits(ports: dict[str, Any], direction: str) -> list[int]:
    """Nets of the ports that do not stay pins; constant outputs are none."""
    return [
        bit for name, port in ports.items()
        if port["direction"] == direction and name not in PINS
        for bit in port["bits"] if isinstance(bit, int)
    ]
