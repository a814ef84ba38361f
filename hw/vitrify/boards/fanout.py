"""Copies of whatever drives many cells, so that each copy is near the cells that it drives.

nextpnr copies nothing.  Its router lets a wire's branches share what the wire has already, however
long the way round: of a net with hundreds of readers, some end up behind a hundred tiles.
"""

from __future__ import annotations

from .netlist import Netlist, Wiring

#: Readers that a wire has at most.
MOST = 32

#: Where the cells that are copied have their output.
_OUTPUT = {"LUT4": "Z", "TRELLIS_FF": "Q"}


def split_fanout(module: Netlist, most: int = MOST) -> int:
    """Copy registers and LUTs with more than ``most`` readers; returns the number of copies.

    Readers are shared out in the order of their names: those of one part of the design keep
    together.  The LUT before a register is copied with it: nextpnr fails on two registers behind
    one LUT.
    """
    wiring, cells = Wiring(module), module["cells"]
    free, copies = wiring.free(), 0

    def copy(of: str, name: str, inputs: dict[str, int]) -> int:
        """A cell like ``of`` with some other inputs; returns its output."""
        nonlocal free
        one = cells[of]
        ports = {port: [bit] for port, bit in (inputs | {_OUTPUT[one["type"]]: free}).items()}
        cells[name] = one | {"connections": one["connections"] | ports}
        module["netnames"][name] = {"hide_name": 1, "bits": [free], "attributes": {}}
        free += 1
        return free - 1

    # As the netlist is: a copy gives what is before it a reader more, and that is not looked at.
    many = [
        (bit, wiring.drivers[bit][0], sorted(users)) for bit, users in wiring.readers.items()
        if len(users) > most and _copied(wiring, wiring.driver(bit))
    ]
    for bit, driver, users in many:
        before = _before(wiring, driver)
        count = -(-len(users) // most)
        # The first share stays with the original, which may also drive a pin.
        for share in range(1, count):
            name, inputs = f"{driver}.copy{share}", {}
            if before is not None and cells[before]["type"] == "LUT4":
                inputs = {"DI": copy(before, f"{name}.DI", {})}
            own = copy(driver, name, inputs)
            for user, port in users[share * len(users) // count:(share + 1) * len(users) // count]:
                bits = cells[user]["connections"][port]
                cells[user]["connections"][port] = [own if b == bit else b for b in bits]
        copies += count - 1
    return copies


def _copied(wiring: Wiring, name: str | None) -> bool:
    """LUTs, and registers behind a register or a LUT."""
    if name is None or wiring.cells[name]["type"] not in _OUTPUT:
        return False
    before = _before(wiring, name)
    return wiring.cells[name]["type"] == "LUT4" or (
        before is not None and wiring.cells[before]["type"] in _OUTPUT
    )


def _before(wiring: Wiring, name: str) -> str | None:
    """What drives a register."""
    one = wiring.cells[name]
    return wiring.driver(one["connections"]["DI"][0]) if one["type"] == "TRELLIS_FF" else None
