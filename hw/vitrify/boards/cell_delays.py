"""Delays of the cells that Yosys maps to, in ns.

Those of ``share/lattice`` and ``share/xilinx`` in the package of Yosys (``specify`` blocks, of the
slowest pin or bit of a port), with which it maps.  Where Yosys has none for ECP5 (block RAM,
multipliers, clock to output), what nextpnr reports for speed grade 6.  Yosys has one set for AMD,
of the 7 series, which it uses for UltraScale+, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal


@dataclass(frozen=True)
class Arc:
    """From inputs to outputs (patterns of port names) of a cell, in ns.

    ``order``: bit i of the outputs depends on no bit of the inputs behind i.
    """

    inputs: str
    outputs: str
    delay: float
    kind: Literal["level", "carry", "free"] = "level"
    order: bool = False


@dataclass(frozen=True)
class Cell:
    """Delays of a type of cell: clock to outputs, inputs to clock, and through it.

    ``starts`` is None for cells that never have a register.
    """

    starts: Mapping[str, float] | None = None
    ends: Mapping[str, float] | None = None
    through: tuple[Arc, ...] = ()
    #: Inputs that a wire of their own reaches (cascades, multiplexers behind LUTs): no delay.
    near: str = ""

    @property
    def fabric(self) -> bool:
        """Whether it is a LUT, a multiplexer or a carry: those have registers beside them."""
        return bool(self.through) and self.starts is None


def _lut(*delays: float) -> Cell:
    """A LUT of AMD: the last input is the fastest."""
    return Cell(through=tuple(Arc(f"I{n}", "O", d) for n, d in enumerate(delays)))


def _lutram(read: float, start: float) -> Cell:
    """Distributed RAM whose outputs DOA, DOB … have an address each: ADDRA, ADDRB."""
    ports = "ABCDEFGH"
    return Cell({"DO.": start}, {"DI.": 0.453, "WE": 0.654, "ADDR.": 0.362},
                 tuple(Arc(f"ADDR{p}", f"DO{p}", read) for p in ports))


def _dual(read: float, start: float) -> Cell:
    """Distributed RAM with outputs SPO, DPO and addresses A, DPRA (in bits, or a bus)."""
    return Cell({"[SD]PO": start}, {"D": 0.453, "WE": 0.654, r"A\d*": 0.362},
                 (Arc(r"A\d*", "SPO", read), Arc(r"DPRA\d*", "DPO", read)))


_NO_CLOCK = "(?!.*CLK).*"
_FF = Cell({"Q": 0.303}, {"D": 0.0, "CE": 0.109, "R|S|CLR|PRE": 0.404})
_SRL = Cell({"Q": 1.472, "Q15|Q31": 1.114}, {"D": 0.173, "CE": 0.109},
             (Arc(r"A\d*", "Q", 0.631),))
_CARRY = (
    Arc("S|DI|CYINIT|AX", "O", 0.40, order=True), Arc("S|DI|CYINIT", "CO", 0.51, order=True),
    Arc("CI", "O", 0.313, "carry"), Arc("CI", "CO", 0.114, "carry"),
)
#: Types of cells of both families.  AMD: the 7 series, which Yosys uses for UltraScale+, too.
_FIXED: dict[str, Cell] = {
    "LUT1": _lut(0.127), "LUT2": _lut(0.238, 0.127), "LUT3": _lut(0.407, 0.238, 0.127),
    "LUT5": _lut(0.631, 0.472, 0.407, 0.238, 0.127),
    "LUT6": _lut(0.642, 0.631, 0.472, 0.407, 0.238, 0.127),
    # Goes into the LUT behind it.
    "INV": Cell(through=(Arc("I", "O", 0.0, "free"),), near="I"),
    "MUXF7": Cell(through=(Arc("I[01]", "O", 0.223, "free"), Arc("S", "O", 0.296)),
                   near="I[01]"),
    "MUXF8": Cell(through=(Arc("I[01]", "O", 0.104, "free"), Arc("S", "O", 0.273)),
                   near="I[01]"),
    "CARRY4": Cell(through=_CARRY, near="CI|S"), "CARRY8": Cell(through=_CARRY, near="CI|S"),
    **dict.fromkeys(("FDRE", "FDSE", "FDCE", "FDPE"), _FF),
    **dict.fromkeys(("SRL16E", "SRLC16E", "SRLC32E"), _SRL),
    **dict.fromkeys(("RAM32M", "RAM64M", "RAM32M16", "RAM64M8"), _lutram(0.642, 1.188)),
    "RAM32X1D": _dual(0.631, 1.153), "RAM64X1D": _dual(0.642, 1.153),
    "RAM128X1D": _dual(1.039, 1.545), "RAM256X1D": _dual(1.161, 1.674),
    "RAM64X1S": Cell({"O": 1.153}, {"D": 0.453, "WE": 0.654}, (Arc(r"A\d", "O", 0.642),)),
    "LUT4": Cell(through=(Arc("I0", "O", 0.472), Arc("I1", "O", 0.407), Arc("I2", "O", 0.238),
                          Arc("I3", "O", 0.127), Arc("[ABCD]", "Z", 0.233))),
    "PFUMX": Cell(through=(Arc("[AB]LUT", "Z", 0.098, "free"), Arc("C0", "Z", 0.151)),
                  near="[AB]LUT"),
    "L6MUX21": Cell(through=(Arc("D[01]", "Z", 0.141, "free"), Arc("SD", "Z", 0.148)),
                    near="D[01]"),
    "CCU2C": Cell(near="CIN", through=(
        Arc("[ABCD]0", "S0", 0.379), Arc("[ABCD][01]", "S1", 0.63),
        Arc("[ABCD][01]", "COUT", 0.516), Arc("CIN", "S[01]", 0.273, "carry"),
        Arc("CIN", "COUT", 0.043, "carry"))),
    "TRELLIS_FF": Cell({"Q": 0.525}, {"DI|M": 0.0, "CE": 0.0, "LSR": 0.424}),
    "TRELLIS_DPR16X4": Cell({"DO": 0.525}, {"DI": 0.0, "WAD|WRE": 0.0},
                            (Arc("RAD", "DO", 0.236),)),
    **dict.fromkeys(("TRELLIS_IO", "ODDRX1F", "EHXPLLL", "$scopeinfo"), Cell()),
}


def _memory(
    start: float, registered: float, setup: float, flags: tuple[str, ...],
    parameters: Mapping[str, Any],
) -> Cell:
    """A block RAM: the faster start if all its outputs (by parameters ``flags``) have registers."""
    values = [str(parameters.get(flag, "0")) for flag in flags]
    held = all(value == "OUTREG" or value.endswith("1") for value in values)
    return Cell({"DO.*": registered if held else start}, {_NO_CLOCK: setup})


def _mult18(parameters: Mapping[str, Any]) -> Cell:
    """MULT18X18D, any of whose ports may be registered: what is not is a path through it."""
    free = [f"{port}\\d+" for port in "AB"
            if parameters.get(f"REG_INPUT{port}_CLK", "NONE") == "NONE"]
    ends = {"CE.|RST.": 0.0, r"[AB]\d+": 0.0}
    if parameters.get("REG_OUTPUT_CLK", "NONE") != "NONE":
        return Cell({r"P\d+": 0.6}, dict.fromkeys(free, 3.927) | ends)
    return Cell({r"P\d+": 4.452} if len(free) < 2 else {}, ends,
                tuple(Arc(ports, r"P\d+", 3.927) for ports in free))


def _dsp48(parameters: Mapping[str, Any]) -> Cell:
    """DSP48E1, E2: an input's setup is up to its first register, outputs from the last one."""
    def has(name: str) -> bool:
        value = parameters.get(name, 1)
        return int(value, 2) > 0 if isinstance(value, str) else bool(value)

    product, out = has("MREG"), has("PREG")
    ends, through = {"CE.*|RST.*|OPMODE|INMODE|ALUMODE|CARRYIN(SEL)?": 0.3}, []
    for ports, register, to_m, to_p in (
        ("A|ACIN", "AREG", 1.416, 2.739), ("B|BCIN", "BREG", 1.416, 2.739),
        ("D", "DREG", 2.4, 3.635), ("C", "CREG", None, 1.244), ("PCIN", None, None, 1.025),
    ):
        if register is not None and has(register):
            ends[ports] = 0.324
        elif product and to_m is not None:
            ends[ports] = to_m
        elif out:
            ends[ports] = to_p
        else:
            through.append(Arc(ports, "P|PCOUT", 2.823 if to_m is not None else 1.5))
    start = 0.435 if out else 1.819 if product else 3.098
    return Cell({"P|PCOUT|CARRYOUT": start, "ACOUT|BCOUT": 0.5}, ends, tuple(through),
                 near="PCIN|ACIN|BCIN")


_PARAMETRISED = {
    "DP16KD": partial(_memory, 5.83, 0.6, 0.0, ("REGMODE_A", "REGMODE_B")),
    "PDPW16KD": partial(_memory, 5.83, 0.6, 0.0, ("REGMODE",)),
    **dict.fromkeys(("RAMB18E1", "RAMB36E1", "RAMB18E2", "RAMB36E2"),
                    partial(_memory, 2.454, 0.882, 0.566, ("DOA_REG", "DOB_REG"))),
    # Yosys has no times for UltraRAM: those of a block RAM.
    "URAM288": partial(_memory, 2.454, 0.882, 0.566, ("OREG_A", "OREG_B")),
    "MULT18X18D": _mult18, "DSP48E1": _dsp48, "DSP48E2": _dsp48,
}


def cell_delays(kind: str, parameters: Mapping[str, Any]) -> Cell | None:
    """Of a cell of type ``kind``; None if the type is not known."""
    if kind in _PARAMETRISED:
        return _PARAMETRISED[kind](parameters)
    return _FIXED.get(kind)
