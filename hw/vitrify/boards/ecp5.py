"""ECP5 netlists between Yosys and nextpnr: registers, and room for wires; layouts of the parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vitrify.arch.config import Part
from vitrify.arch.errors import BackendError

from .netlist import Netlist, Wiring, cell

#: One row of so many may stay empty, while no more of the others than this is taken.
_EVERY, _FULLEST = range(3, 9), 0.65


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Where a part has what, in nextpnr's coordinates."""

    #: nextpnr's option.
    device: str
    #: Rows of block RAMs, in the order in which they are filled (the smaller of the large memories
    #: come last, amidst the multipliers), and rows of multipliers.
    ram_rows: tuple[int, ...]
    multiplier_rows: tuple[int, ...]
    #: Where in such a row four block RAMs or four multipliers begin.
    groups: tuple[int, ...]
    #: Columns and rows of logic, without those rows.
    columns: range
    all_rows: range

    @property
    def rows(self) -> list[int]:
        """Rows of logic."""
        return [y for y in self.all_rows if y not in self.ram_rows + self.multiplier_rows]

    @property
    def ram_places(self) -> list[tuple[str, str]]:
        """Column and name of the block RAMs of a row."""
        return [(f"X{x + 2 * i}", f"EBR{i}") for x in self.groups for i in range(4)]

    @property
    def multiplier_blocks(self) -> list[list[str]]:
        """Places of the multipliers that share control lines; the last block of each row last."""
        rows = [
            [[f"X{x + i}/Y{row}/MULT18_{i}" for i in (0, 1, 4, 5)] for x in self.groups]
            for row in self.multiplier_rows
        ]
        return [*(block for row in rows for block in row[:-1]), *(row[-1] for row in rows)]


CHIPS: dict[str, Chip] = {
    "LFE5U-25F": Chip(
        device="--25k", ram_rows=(25, 37), multiplier_rows=(13,),
        groups=(4, 13, 22, 33, 42, 51, 60), columns=range(2, 71), all_rows=range(2, 49),
    ),
    "LFE5U-45F": Chip(
        device="--45k", ram_rows=(34, 58, 10), multiplier_rows=(22, 46),
        groups=(4, 13, 22, 31, 42, 51, 60, 69, 78), columns=range(2, 89), all_rows=range(2, 70),
    ),
    "LFE5U-85F": Chip(
        device="--85k", ram_rows=(70, 22, 82, 46), multiplier_rows=(34, 58, 10),
        groups=(4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114), columns=range(2, 125),
        all_rows=range(2, 92),
    ),
}


def chip(part: Part) -> Chip:
    """The layout of a part.

    Raises
    ------
    BackendError
        If it is not known.
    """
    if part.name not in CHIPS:
        raise BackendError(
            f"place and route knows no part {part.name!r}; it knows {', '.join(CHIPS)}"
        )
    return CHIPS[part.name]


def leave_rows(module: Netlist, chip: Chip, used: float) -> int:
    """Fill rows of the chip with LUTs without wires; returns how many LUTs.

    nextpnr's placers pack a design as tightly as they can, whatever that does to the wires: a
    third of the chip was full, the rest empty, and the router never found a way through the middle.
    So every third row stays empty, or as many as the design has no need of.

    Parameters
    ----------
    used : LUTs or flip-flops of the design, whichever are more
    """
    row_luts = 8 * len(chip.columns)
    rows = next((
        rows for every in _EVERY if (rows := chip.rows[::every])
        and used <= _FULLEST * row_luts * (len(chip.rows) - len(rows))
    ), [])
    for row in rows:
        for column in chip.columns:
            for place in (f"SLICE{s}.K{k}" for s in "ABCD" for k in (0, 1)):
                bel = f"X{column}/Y{row}/{place}"
                module["cells"][f"empty.{bel}"] = cell(
                    "LUT4", {}, {}, {"INIT": "0" * 16}, {"BEL": bel}
                )
    return len(rows) * row_luts


def _control(wiring: Wiring, name: str | None) -> tuple[Any, Any] | None:
    """Clock and clock enable of a flip-flop that is never reset; None for everything else."""
    one = wiring.cells.get(name)
    if one is None or one["type"] != "TRELLIS_FF":
        return None
    parameters, nets = one["parameters"], one["connections"]
    enabled = parameters.get("CEMUX", "1").strip()
    plain = (
        parameters.get("CLKMUX") == "CLK" and parameters.get("REGSET") == "RESET"
        and nets.get("LSR", ["0"]) == ["0"] and enabled in ("1", "CE")
    )
    return (nets["CLK"][0], "1" if enabled == "1" else nets["CE"][0]) if plain else None


def absorb_registers(module: Netlist) -> int:
    """Move registers around multipliers into them; returns how many flip-flops that saves.

    ``synth_ecp5`` leaves the registers of a MULT18X18D unused.  Outputs are taken where a product
    goes to registers only, inputs where both operands come from registers that nothing but
    multipliers reads.
    """
    multipliers = [one for one in module["cells"].values() if one["type"] == "MULT18X18D"]
    _straighten_enables(module, multipliers)
    wiring = Wiring(module)
    outputs = set[str]().union(*(_absorb_output(wiring, one) for one in multipliers))
    gone = outputs.union(*(_absorb_inputs(wiring, one, outputs) for one in multipliers))
    read = {
        bit for one in module["cells"].values() for port, (bit, *_) in one["connections"].items()
        if one["port_directions"][port] == "input"
    } | wiring.pins
    # A register of operands may still be read by a multiplier that could not take it.
    unused = outputs | {
        name for name in gone if module["cells"][name]["connections"]["Q"][0] not in read
    }
    for name in unused:
        del module["cells"][name]
    return len(unused)


def _straighten_enables(module: Netlist, multipliers: list[dict[str, Any]]) -> None:
    """An inverter for each enable of which a zero enables registers around multipliers.

    A flip-flop inverts its enable itself, the registers of a multiplier do not.
    """
    wiring = Wiring(module)
    free, straight = wiring.free(), dict[int, int]()
    before = {wiring.driver(bit) for one in multipliers for letter in "AB"
              for _, bit in _nets(one, letter)}
    behind = {name for one in multipliers for _, bit in _nets(one, "P")
              for name, _ in wiring.readers[bit]}
    for name in sorted(filter(None, before | behind)):
        one = wiring.cells[name]
        if one["type"] != "TRELLIS_FF" or one["parameters"].get("CEMUX") != "INV":
            continue
        (enable,) = one["connections"]["CE"]
        if enable not in straight:
            straight[enable] = free
            wiring.cells[f"{name}.CE"] = cell(
                "LUT4", {"A": enable, "B": "0", "C": "0", "D": "0"}, {"Z": free},
                {"INIT": "01" * 8},
            )
            module["netnames"][f"{name}.CE"] = {"hide_name": 1, "bits": [free], "attributes": {}}
            free += 1
        one["parameters"]["CEMUX"] = "CE"
        one["connections"]["CE"] = [straight[enable]]


def _absorb_output(wiring: Wiring, one: dict[str, Any]) -> set[str]:
    readers = {port: wiring.readers[bit] for port, bit in _nets(one, "P") if wiring.readers[bit]}
    if any(len(found) != 1 or found[0][1] != "DI" for found in readers.values()):
        return set()
    controls = {_control(wiring, found[0][0]) for found in readers.values()}
    if len(controls) != 1 or None in controls or wiring.pins & {b for _, b in _nets(one, "P")}:
        return set()
    _register(one, "OUTPUT", "CE0", controls.pop())
    for port, ((name, _),) in readers.items():
        one["connections"][port] = wiring.cells[name]["connections"]["Q"]
    return {found[0][0] for found in readers.values()}


def _absorb_inputs(wiring: Wiring, one: dict[str, Any], taken: set[str]) -> set[str]:
    """Both operands or none: nextpnr knows no delays of a multiplier with one registered input."""
    plans = []
    for operand, enable in (("A", "CE1"), ("B", "CE2")):
        sources = {port: wiring.driver(bit) for port, bit in _nets(one, operand)}
        controls = {_control(wiring, name) for name in sources.values()}
        shared = any(
            wiring.cells[name]["type"] != "MULT18X18D" or not re.fullmatch(r"[AB]\d+", port)
            for _, bit in _nets(one, operand) for name, port in wiring.readers[bit]
        )
        if len(controls) != 1 or None in controls or shared or taken & set(sources.values()):
            return set()
        plans.append((f"INPUT{operand}", enable, controls.pop(), sources))
    clocks = {control[0] for _, _, control, _ in plans if control}
    if len(clocks | set(one["connections"].get("CLK0", []))) != 1:
        return set()
    for register, enable, control, sources in plans:
        _register(one, register, enable, control)
        for port, name in sources.items():
            one["connections"][port] = wiring.cells[name]["connections"]["DI"]
    return {name for *_, sources in plans for name in sources.values() if name}


def _nets(one: dict[str, Any], letter: str) -> list[tuple[str, int]]:
    """Ports ``letter``0, 1 … that are no constants."""
    return [
        (port, bit) for port, (bit, *_) in one["connections"].items()
        if re.fullmatch(rf"{letter}\d+", port) and isinstance(bit, int)
    ]


def _register(one: dict[str, Any], name: str, enable: str, control: Any) -> None:
    """Switch a multiplier's register on."""
    clock, enabled = control
    one["parameters"] |= {
        f"REG_{name}_CLK": "CLK0", f"REG_{name}_CE": enable, f"REG_{name}_RST": "RST0",
    }
    for port, bit in (("CLK0", clock), (enable, enabled), ("RST0", "0")):
        one["connections"][port], one["port_directions"][port] = [bit], "input"
