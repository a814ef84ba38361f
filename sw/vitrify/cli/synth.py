"""``vitrify synth``: LUTs, flip-flops, multipliers and memories of cores on their parts."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError, InputError
from vitrify.arch.load import load as load_arch
from vitrify.arch.presets import PRESETS
from vitrify.program.files import check_writable, write_atomic

from .terminal import new_table, print_json, show, status


def register(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "synth",
        help="synthesise cores with Yosys and report what they take",
        description="Synthesise with Yosys for the architecture's part; on ECP5 also place and "
        "route with nextpnr; elsewhere, and without that, a range of clocks by levels of logic.  "
        "Minutes for a small core, longer for a large one.",
    )
    parser.add_argument(
        "--arch",
        nargs="+",
        default=list(PRESETS),
        metavar="PRESET|FILE.yaml",
        help="default: every preset",
    )
    parser.add_argument("--no-route", action="store_true", help="skip place and route")
    parser.add_argument(
        "--units",
        action="store_true",
        help="show what each unit of a core takes, synthesised by itself; no place and route",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="place and route up to N times, until the core's clock is reached, and report the "
        "best (default: 1)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("build/synth"),
        metavar="DIR",
        help="netlists, logs and report.json of each core (default: build/synth)",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE.md",
        help="update the table in this file with these cores",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    check_writable(options.markdown)
    if options.seeds is not None and options.seeds < 1:
        raise InputError(f"--seeds must be 1 or more, not {options.seeds}")
    if options.units and options.markdown is not None:
        raise InputError("--markdown has the table of whole cores; leave out --units")
    if options.no_route and options.seeds is not None:
        raise InputError("--no-route leaves out what --seeds repeats; give one of both")
    for given, name in ((options.no_route, "--no-route"), (options.seeds is not None, "--seeds")):
        if options.units and given:
            raise InputError(f"--units places and routes nothing; leave out {name}")
    archs = [load_arch(name) for name in options.arch]
    if options.units:
        _show_units(archs, options)
        return
    if options.seeds is not None and all(arch.part.family != "ecp5" for arch in archs):
        raise InputError(
            f"nothing places and routes {archs[0].part.name} here, which --seeds repeats; leave "
            f"it out"
        )
    seeds = 0 if options.no_route else options.seeds or 1
    reports = [_report(arch, options.output / arch.name, seeds) for arch in archs]
    if options.markdown is not None:
        text = markdown(options.output) + behind(options.markdown)
        write_atomic(options.markdown, text.encode())
    if options.json:
        print_json(reports)
        return
    show(_table(reports))
    for report in reports:
        if "clock_range" in report:
            show(f"{report['arch']}: clock {report['clock_range']['words']}")
        elif "clock_unknown" in report:
            show(f"{report['arch']}: no range of clocks: {report['clock_unknown']}")


def _show_units(archs: list[ArchConfig], options: argparse.Namespace) -> None:
    from vitrify.arch.names import module_name
    from vitrify.boards.units import synthesise_units
    from vitrify.rtl.emit import emit

    reports = []
    for arch in archs:
        folder = options.output / arch.name / "units"
        with status(f"elaborating {arch.name}"):
            verilog = emit(arch, folder)
        with status(f"synthesising the units of {arch.name} for {arch.part.name}"):
            units = synthesise_units(arch, verilog, module_name(arch), folder, {})
        reports.append({
            "arch": arch.name, "part": arch.part.name,
            "units": {unit: asdict(used) for unit, used in units.items()},
        })
    if options.json:
        print_json(reports)
        return
    for report in reports:
        luts = sum(used["luts"] for used in report["units"].values())
        table = new_table("unit", *_KINDS, "of the LUTs",
                          title=f"{report['arch']} on {report['part']}: {luts:,g} LUTs")
        for unit, used in report["units"].items():
            table.add_row(unit, *(f"{used[name]:,g}" for name in _KINDS.values()),
                          f"{used['luts'] / luts:.1%}")
        show(table)


def _report(arch: ArchConfig, folder: Path, seeds: int) -> dict[str, Any]:
    from vitrify.arch.names import module_name
    from vitrify.boards.synthesis import synthesise
    from vitrify.rtl.emit import emit

    with status(f"elaborating {arch.name}"):
        verilog = emit(arch, folder)
    with status(f"synthesising {arch.name} for {arch.part.name}"):
        used = synthesise(arch, verilog, module_name(arch), folder)
    report: dict[str, Any] = {
        "arch": arch.name,
        "macs": arch.macs,
        "part": asdict(arch.part),
        "used": asdict(used),
        "exceeds": used.exceeds(arch.part),
    }
    if seeds and arch.part.family == "ecp5":
        report |= route(arch, folder, module_name(arch), seeds)
    else:
        with status(f"looking for the longest path of {arch.name}"):
            report |= levels(folder, module_name(arch), arch.part.family)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def levels(folder: Path, top: str, family: str) -> dict[str, Any]:
    """The range of clocks of a netlist that is not placed, or why there is none."""
    from vitrify.boards.clock import clock_range

    try:
        found = clock_range(folder, top, family)
    except BackendError as error:  # what was synthesised in many minutes is reported all the same
        return {"clock_unknown": str(error)}
    return {"clock_range": {**asdict(found), "words": str(found)}}


def route(arch: ArchConfig, folder: Path, top: str, seeds: int) -> dict[str, Any]:
    """The best timing of a few seeds, and the clock of each; the log is the last one's."""
    from vitrify.boards.synthesis import Timing, place_and_route

    found: dict[int, Timing] = {}
    for seed in range(1, seeds + 1):
        with status(f"placing and routing {arch.name}, seed {seed} of {seeds}"):
            found[seed] = timing = place_and_route(arch, folder, top, seed=seed)
        if timing.achieved_mhz >= timing.target_mhz:
            break
    best = max(found.values(), key=lambda timing: timing.achieved_mhz)
    clocks = {str(seed): timing.achieved_mhz for seed, timing in found.items()}
    return {"timing": asdict(best), "seeds_mhz": clocks}


def _cells(report: dict[str, Any]) -> list[str]:
    """One row of the table."""
    part, used = report["part"], report["used"]

    def share(name: str) -> str:
        return f"{used[name]:,g} / {part[name]:,}" if part[name] else f"{used[name]:,g}"

    timing = report.get("timing")
    clock = "" if timing is None else f"{timing['achieved_mhz']:.1f} MHz"
    if len(report.get("seeds_mhz", {})) > 1:
        clock += f" (best of {len(report['seeds_mhz'])})"
    return [
        report["arch"],
        str(report["macs"]),
        part["name"],
        *map(share, _KINDS.values()),
        clock,
    ]


#: Resources: what a column is called, and its key in a report.
_KINDS = {"LUT": "luts", "FF": "ffs", "DSP": "dsps", "block RAM": "brams", "URAM": "urams"}
_COLUMNS = ("arch", "MACs", "part", *_KINDS, "nextpnr clock")


def _table(reports: list[dict[str, Any]]) -> Any:
    table = new_table(*_COLUMNS, title="used / available")
    for report in reports:
        table.add_row(*_cells(report))
    return table


def behind(path: Path) -> str:
    """What stands behind the table in a file that exists: its further sections."""
    text = path.read_text() if path.is_file() else ""
    at = text.find("\n## ")
    return text[at:] if at >= 0 else ""


def markdown(folder: Path) -> str:
    """The table of every report below ``folder``, presets in their order."""
    found = {path.parent.name: path for path in folder.glob("*/report.json")}
    names = [name for name in PRESETS if name in found]
    names += sorted(found.keys() - PRESETS.keys())
    lines = [
        "# Resources",
        "",
        ("Used / available, by Yosys for the part of each preset (`vitrify synth --markdown "
        "docs/resources.md`); the clock is what nextpnr reaches for the core alone, "
        "its ports in registers. ECP5: LUT4 equivalents (carry and distributed RAM included), "
        "MULT18X18D, 18-kbit EBR. AMD: LUTs with distributed RAM and shift registers, DSP48, "
        "36-kbit block RAM."),
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    lines += [
        "| " + " | ".join(_cells(json.loads(found[name].read_text()))) + " |" for name in names
    ]
    return "\n".join(lines) + "\n"
