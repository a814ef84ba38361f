"""Yosys' JSON netlists: cells, and who drives and reads each net."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Netlist = dict[str, Any]


def cell(
    kind: str, inputs: dict[str, int | str], outputs: dict[str, int],
    parameters: dict[str, str], attributes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A cell of a Yosys JSON netlist, all of whose ports are one bit wide."""
    return {
        "hide_name": 0, "type": kind, "parameters": parameters, "attributes": attributes or {},
        "port_directions": dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output"),
        "connections": {name: [net] for name, net in (inputs | outputs).items()},
    }


class Wiring:
    """Who drives and who reads each net: ``(cell, port)``."""

    def __init__(self, module: Netlist) -> None:
        self.cells = module["cells"]
        self.drivers: dict[int, tuple[str, str]] = {}
        self.readers: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for name, one in self.cells.items():
            for port, bits in one["connections"].items():
                output = one["port_directions"][port] == "output"
                for bit in bits:
                    if not isinstance(bit, int):
                        continue  # a constant
                    if output:
                        self.drivers[bit] = name, port
                    else:
                        self.readers[bit].append((name, port))
        self.pins = {bit for port in module["ports"].values() for bit in port["bits"]}

    def driver(self, bit: int) -> str | None:
        """Name of the cell that drives a net."""
        return self.drivers[bit][0] if bit in self.drivers else None

    def free(self) -> int:
        """First number that no net has, nor any behind it."""
        return 1 + max(bit for bit in (*self.drivers, *self.readers))
