"""Copies of whatever drives many cells, so that each copy is near the cells that it drives.

nextpnr copies nothing.  Its router lets a wire's branches share what the wire has already, however
long the way round: of a net with hundreds of readers, some end up behind a hundred tiles.
"""

from __future__ import annotations

from .netlist import Netlist, Wiring

#: Readers that a wire has at most.
MOST = 48


def split_fanout(module: Netlist, most: int = MOST) -> int:
    """Copy registers and LUTs with more than ``most`` readers; returns the number of copies.

    Readers are shared out in the order of their names: those of one part of the design keep
    together.
    """
    wiring, cells = Wiring(module), module["cells"]
    free = 1 + max(bit for bit in (*wiring.drivers, *wiring.readers))
    copies = 0
    # As the netlist is: a copy gives what is before it a reader more, and that is not looked at.
    many = [
        (bit, *wiring.drivers[bit], sorted(users)) for bit, users in wiring.readers.items()
        if len(users) > most and _copied(wiring, wiring.driver(bit))
    ]
    for bit, driver, output, users in many:
        count = -(-len(users) // most)
        # The first share stays with the original, which may also drive a pin.
        for share in range(1, count):
            name, own = f"{driver}.copy{share}", free
            cells[name] = cells[driver] | {
                "connections": cells[driver]["connections"] | {output: [own]},
            }
            module["netnames"][name] = {"hide_name": 1, "bits": [own], "attributes": {}}
            for user, port in users[share * len(users) // count:(share + 1) * len(users) // count]:
                bits = cells[user]["connections"][port]
                cells[user]["connections"][port] = [own if b == bit else b for b in bits]
            free += 1
        copies += count - 1
    return copies


def _copied(wiring: Wiring, name: str | None) -> bool:
    """LUTs, and registers behind registers: nextpnr fails on two registers behind one LUT."""
    one = wiring.cells.get(name)
    if one is None or one["type"] != "TRELLIS_FF":
        return one is not None and one["type"] == "LUT4"
    before = wiring.driver(one["connections"]["DI"][0])
    return before is not None and wiring.cells[before]["type"] == "TRELLIS_FF"
