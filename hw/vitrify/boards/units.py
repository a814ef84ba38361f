"""A core by its units: what each of them takes of the part.

Nothing is optimised across the boundaries of the units; docs/resources.md says what that changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from vitrify.arch.config import ArchConfig

from .synthesis import Resources, count, synthesise

#: What is in no unit: registers, multiplexers and resets in between.
BETWEEN = "between"
_MODULE = re.compile(r"^module (?:\\(?P<escaped>\S+) |(?P<plain>\w+)).*?^endmodule\n", re.M | re.S)
#: What says which ports a module has: its header, of which Yosys breaks long ones, and lines.
_PORTS = re.compile(r"^(?:module .*?\);\n|  (?:in|out)put [^\n]*\n|endmodule\n)", re.M | re.S)


def synthesise_units(
    arch: ArchConfig, verilog: Path, top: str, work: Path, known: dict[str, Resources],
) -> dict[str, Resources]:
    """Resources of each unit by its name in :class:`~vitrify.rtl.core.Core`, the largest first.

    Parameters
    ----------
    verilog : file with the module ``top``
    work : as for :func:`~vitrify.boards.synthesis.synthesise`
    known : resources of units by :func:`identity`, which are black boxes; new ones are added
    """
    modules = _modules(verilog.read_text())
    units = {name: module for module in modules if (name := _unit(module, top))}
    keys = {name: identity(arch, modules, module) for name, module in units.items()}
    new = [module for name, module in units.items() if keys[name] not in known]
    boxes = {module: f"(* blackbox *)\n{''.join(_PORTS.findall(modules[module]))}"
             for module in units.values() if module not in new}
    work.mkdir(parents=True, exist_ok=True)
    source = work / "units.v"
    source.write_text("".join(
        boxes.get(module, text) for module, text in modules.items()
        if not any(module.startswith(f"{box}.") for box in boxes)
    ))
    synthesise(arch, source, top, work, keep=new)
    counted = _count_units(work, top)
    for name, module in units.items():
        if module in new:
            known[keys[name]] = counted[module]
    found = {name: known[key] for name, key in keys.items()} | {BETWEEN: counted[BETWEEN]}
    return dict(sorted(found.items(), key=lambda item: -item[1].luts))


def identity(arch: ArchConfig, modules: Mapping[str, str], unit: str) -> str:
    """Equal for units that synthesis makes the same of, whatever the name of the core."""
    text = "".join(_closure(modules, unit)).replace(unit, "unit")
    # Amaranth numbers what has the same name, all over the core.
    text = re.sub(r"(\$\d+)+(?=[ .])", "", text)
    family = f"{arch.part.family}{' uram' * bool(arch.part.urams)}"
    return hashlib.sha256(f"{family}\n{text}".encode()).hexdigest()[:16]


def total(units: Mapping[str, Resources]) -> Resources:
    """Of all units together."""
    return Resources(**{
        kind: sum(getattr(used, kind) for used in units.values()) for kind in asdict(Resources())
    })


def _modules(verilog: str) -> dict[str, str]:
    return {found["escaped"] or found["plain"]: found[0] for found in _MODULE.finditer(verilog)}


def _unit(module: str, top: str) -> str:
    """The name of the unit that a module is, or nothing."""
    found = re.fullmatch(rf"{top}\.(?:core\.)?(\w+)(?:\$\d+)*", module)
    return found[1] if found and found[1] != "core" else ""


def _closure(modules: Mapping[str, str], unit: str) -> list[str]:
    """A unit, what is in it, and the shared parts (:func:`vitrify.rtl.lib.shared.place`) of it."""
    found = [text for module, text in modules.items() if f"{module}.".startswith(f"{unit}.")]
    for text in found:
        for module, body in modules.items():
            if body not in found and f"  {module.split('.')[0]} " in text:
                found.append(body)
    return found


def _count_units(work: Path, top: str) -> dict[str, Resources]:
    """By module name, from ``work/stat.json``."""
    modules = {
        name.removeprefix("\\"): module["num_cells_by_type"]
        for name, module in json.loads((work / "stat.json").read_text())["modules"].items()
    }

    def below(module: str) -> Counter[str]:
        cells: Counter[str] = Counter()
        for kind, number in modules[module].items():
            inner = below(kind) if kind in modules else {kind: 1}
            cells.update({name: number * inside for name, inside in inner.items()})
        return cells

    found = {module: count(below(module)) for module in modules[top] if module in modules}
    found[BETWEEN] = count({k: n for k, n in modules[top].items() if k not in modules})
    return found
