"""A clock for a core that has not been placed: a range, from its longest path; never a promise.

Wires are most of a path.  On ECP5 their law is fitted to what nextpnr reports: a base and a part
that grows with the readers, by least squares over 22 wires of the critical paths of placed cores.
For each placed core there is a factor on that law with which the longest path takes as long as
nextpnr says; the lowest and the highest of these factors are the ends of the range.

No AMD part has been placed.  The slow end has wires as slow as the slowest on ECP5, the fast end
what Yosys assumes when it maps (300 ps a wire).  ``docs/resources.md`` has the figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vitrify.arch.errors import BackendError

from .ecp5 import absorb_registers
from .fanout import split_fanout
from .levels import LongestPath, Wire, longest_path

#: Wires of ECP5 (speed grade 6), ns.
LAW = Wire(1.17, 0.30)

#: Placed cores: MHz by nextpnr, and the factor on :data:`LAW` that gives them.
CALIBRATION = {
    "colorlight-i9, board": (75.65, 0.850),
    "schoko, board": (84.40, 0.927),
    "ulx3s, board": (65.93, 1.128),
    "ulx3s, board, older, fewer registers in multipliers": (61.51, 1.227),
    "ulx3s, board, older": (70.92, 1.047),
    "ulx3s, core alone, older": (79.00, 0.951),
}
_FASTEST, _SLOWEST = (pick(factor for _, factor in CALIBRATION.values()) for pick in (min, max))

#: The wire that ``synth_xilinx`` assumes, ns.
_YOSYS = Wire(0.3)

#: UltraScale+ against the 7 series, whose delays Yosys uses for both: the periods in ns that the
#: README of PicoRV32 publishes for xcku3p and xc7k70t, both of speed grade -2, by Vivado.
_ULTRASCALE = 1.4 / 2.4


@dataclass(frozen=True)
class _Family:
    fast: Wire
    slow: Wire
    #: On everything, cells and wires.
    factor: float = 1.0


_FAMILIES = {
    "ecp5": _Family(LAW * _FASTEST, LAW * _SLOWEST),
    "xc7": _Family(_YOSYS, LAW * _SLOWEST),
    "xcup": _Family(_YOSYS, LAW * _SLOWEST, _ULTRASCALE),
}


@dataclass(frozen=True)
class ClockRange:
    """Clocks in MHz between which place and route may come, and the path of the slow end."""

    slow_mhz: float
    fast_mhz: float
    path: LongestPath

    def __str__(self) -> str:
        path = self.path
        return (
            f"{self.slow_mhz:.0f} to {self.fast_mhz:.0f} MHz by levels (longest path: "
            f"{_count(path.levels, 'level')}, {_count(path.carries, 'carry', 'carries')}, at most "
            f"{_count(path.fanout, 'reader')} a wire), calibrated on {len(CALIBRATION)} placed "
            "ECP5 designs; not placed"
        )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def clock_range(work: Path, top: str, family: str) -> ClockRange:
    """What the flat ``work/netlist.json`` may reach.

    Raises
    ------
    BackendError
        If there is no such netlist, or :func:`~vitrify.boards.levels.longest_path` cannot tell.
    """
    file = work / "netlist.json"
    if not file.is_file():
        raise BackendError(f"there is no netlist {file}")
    module = json.loads(file.read_text())["modules"][top]
    if family == "ecp5":
        # As before place and route, after which the factors were found.
        absorb_registers(module)
        split_fanout(module)
    by = _FAMILIES[family]
    fast = longest_path(module, by.fast)
    slow = longest_path(module, by.slow)
    return ClockRange(1e3 / (slow.period_ns * by.factor), 1e3 / (fast.period_ns * by.factor), slow)
