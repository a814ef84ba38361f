"""``python -m bench.area``: LUTs and flip-flops by Yosys, and the model that is fitted to them.

Every core is synthesised once, unit by unit, units that cores have in common once (minutes a core);
what is on file is not done again.  Then the coefficients of :mod:`vitrify.arch.area` are fitted to
the small cores that are not held out, and the errors of all are shown.  ``--fit`` fits only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import ROOT
from vitrify.arch.area import features, modelled
from vitrify.arch.boards import ECP5_85, XCZU9EG
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset

DATA = ROOT / "bench" / "results" / "area" / "cores.json"
#: Units that were synthesised, by what they are: cores have many in common.
UNITS_DONE = ROOT / "build" / "area" / "units.json"
#: Units of the core, and the features (:func:`vitrify.arch.area.features`) that may count.
UNITS: dict[str, tuple[str, ...]] = {
    "matrix": ("depth", "macs", "packed macs", "macs of pairs", "tree"),
    "accumulator": ("core", "width"),
    "transform": ("core", "depth", "fabric depth", "depth of products"),
    "epilogue": (
        "core", "patterns", "row sums", "experts", "depth", "width", "lanes", "lanes of addends",
        "fabric gates",
    ),
    "tokens": ("core", "bytes of banks"),
    "fetch": ("core", "patterns", "row sums", "experts", "depth"),
    "loader": ("core", "depth", "depth of pairs", "depth of nibbles"),
    "mover": ("core", "experts", "depth"),
    "bus": ("core", "depth"),
    "controller": ("core", "patterns", "products", "experts"),
    "router": ("experts",),
    "indices": ("core", "experts"),
    "stats": ("core", "row sums"),
    "between": ("core", "experts"),
}
#: What the letters of a core stand for.
_OPTIONS = {
    "w": "stored_weights", "p": "patterns", "a": "addends", "m": "products", "r": "row_sums",
    "n": "nibbles", "k": "packing", "f": "fabric_multipliers",
}
#: name: depth, width, lanes, banks, experts, bytes of the bus, ports, options; E: an ECP5.
_SMALL: dict[str, tuple[int, int, int, int, int, int, int, str]] = {
    # One change after the other, of which several units see one only: the others are not new.
    "a0": (4, 4, 2, 2, 0, 4, 1, ""), "a1": (4, 4, 2, 2, 0, 4, 1, "pkn"),
    "a2": (4, 4, 2, 2, 0, 4, 1, "maw"), "a3": (4, 4, 2, 2, 8, 4, 1, "r"),
    "a4": (8, 16, 4, 4, 0, 4, 1, ""), "a5": (4, 4, 2, 2, 0, 4, 1, "f"),
    "a6": (4, 4, 4, 2, 0, 4, 1, ""), "a7": (16, 8, 4, 2, 0, 8, 1, ""),
    "a8": (4, 4, 2, 2, 0, 4, 1, "E"), "a9": (4, 4, 2, 2, 8, 4, 1, "rf"),
    # Everything at once.
    "b0": (32, 8, 8, 4, 0, 16, 1, "kfpamn"), "b1": (16, 16, 2, 8, 0, 4, 1, "Ea"),
    "b2": (8, 32, 8, 4, 8, 8, 1, "wkpr"), "b3": (16, 8, 8, 4, 0, 2, 1, "Efpamrn"),
    "b4": (4, 32, 2, 2, 0, 4, 1, "kn"), "b5": (32, 16, 16, 4, 64, 16, 2, "wkfpamrn"),
    "b6": (4, 8, 1, 4, 8, 4, 1, "Ewr"), "b7": (16, 16, 8, 4, 0, 8, 2, "kfpamrn"),
    "b8": (16, 32, 16, 8, 0, 16, 1, "kfpamrn"), "b9": (8, 8, 8, 6, 16, 4, 1, "Em"),
    # It was held out, and the model, which knew one core on ECP5, told 9.8 % too few LUTs.
    "c0": (4, 8, 4, 4, 0, 2, 1, "En"),
    # Held out.  They have units in common with each other, hardly any with those above.
    "h0": (8, 8, 2, 4, 0, 4, 1, "kpa"), "h1": (8, 8, 4, 4, 0, 4, 1, "kpa"),
    "h2": (8, 8, 2, 4, 0, 4, 1, "kpafn"), "h3": (8, 8, 2, 4, 0, 4, 1, "w"),
    "h4": (8, 8, 2, 8, 0, 4, 1, "kpam"), "h5": (8, 16, 2, 4, 0, 4, 1, "kpw"),
    "h6": (8, 8, 2, 4, 8, 4, 1, "kr"), "h7": (16, 8, 2, 4, 0, 8, 1, "f"),
    "h8": (4, 8, 4, 4, 0, 2, 1, "Enf"), "h9": (4, 8, 2, 4, 0, 2, 1, "Epa"),
}


def cores() -> dict[str, ArchConfig]:
    """The small cores; those whose names begin with ``h`` are held out."""
    nano, found = preset("nano"), {}
    for name, (depth, width, lanes, banks, experts, bus, ports, letters) in _SMALL.items():
        ecp5 = "E" in letters
        found[name] = dataclasses.replace(
            nano, name=name, depth=depth, width=width, lanes=lanes, banks=banks, experts=experts,
            bus_bytes=bus, ports=ports, part=ECP5_85 if ecp5 else XCZU9EG,
            requant_bits=18 if ecp5 else 24, weight_fifo_words=256, stat_rows=256,
            index_entries=256, max_rows=256,
            **{option: letter in letters for letter, option in _OPTIONS.items()},
        )
    return found


def held_out(name: str) -> bool:
    """Whether a core tests the model: some small ones, and the presets."""
    return name.startswith("h") or name not in _SMALL


def used(row: dict[str, Any], kind: str) -> float:
    """LUTs or flip-flops of a core on file: of its units, or of the whole, where it is older."""
    return sum(unit[kind] for unit in row["units"].values()) if "units" in row else row[kind]


def known() -> dict[str, Any]:
    """What is on file: of a core its settings and what its units take.

    The presets are as they were before `patterns` and the options after it, synthesised as a
    whole, until somebody synthesises them again.
    """
    return json.loads(DATA.read_text()) if DATA.is_file() else {}


def synthesise_missing(names: Sequence[str]) -> None:
    """Synthesise what is not on file, one after the other; of each core the units that are new."""
    from vitrify.arch.names import module_name
    from vitrify.boards.synthesis import Resources
    from vitrify.boards.units import synthesise_units, total
    from vitrify.rtl.emit import emit

    units = json.loads(UNITS_DONE.read_text()) if UNITS_DONE.is_file() else {}
    done = {key: Resources(**used) for key, used in units.items()}
    for name in names:
        if "units" in known().get(name, {}):
            continue
        arch = cores().get(name) or preset(name)
        with tempfile.TemporaryDirectory() as folder:
            source = emit(arch, Path(folder))
            found = synthesise_units(arch, source, module_name(arch), Path(folder) / "work", done)
        _write(UNITS_DONE, {key: asdict(used) for key, used in done.items()})
        _write(DATA, known() | {name: {
            "arch": arch.to_dict(), "units": {unit: asdict(used) for unit, used in found.items()},
        }})
        whole = total(found)
        print(f"{name}: {whole.luts:,.0f} LUTs, {whole.ffs:,.0f} FFs", flush=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def fit(data: dict[str, Any], kind: str) -> dict[str, tuple[dict[str, float], float]]:
    """Per unit: coefficients of its features, not negative, and what an ECP5 takes more.

    Errors of a unit count by its share of the core.
    """
    rows = [r for name, r in sorted(data.items()) if not held_out(name)]
    archs = [ArchConfig.from_dict(r["arch"]) for r in rows]
    cores = np.array([used(r, kind) for r in rows])
    found = {}
    for unit, names in UNITS.items():
        counted = [features(arch) for arch in archs]
        a = np.array([[f[name] for name in names] for f in counted], float) / cores[:, None]
        b = np.array([r["units"].get(unit, {}).get(kind, 0) for r in rows], float) / cores
        ecp5 = np.array([arch.part.family == "ecp5" for arch in archs])
        ratio = 1.0
        for _ in range(50):
            solved = _not_negative(np.where(ecp5[:, None], ratio * a, a), b)
            told = a @ solved
            if ecp5.any() and (told[ecp5] > 0).any():
                ratio = float(told[ecp5] @ b[ecp5] / (told[ecp5] @ told[ecp5]))
        found[unit] = (dict(zip(names, solved.tolist(), strict=True)), ratio)
    return found


def _not_negative(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Least squares; whatever would be the most negative stays zero."""
    used = np.ones(a.shape[1], bool)
    while True:
        found = np.zeros(a.shape[1])
        found[used] = np.linalg.lstsq(a[:, used], b, rcond=None)[0]
        if (found >= 0).all():
            return found
        used[int(found.argmin())] = False


def errors(data: dict[str, Any], kind: str) -> dict[str, float]:
    """Relative error of the model for each core."""
    fitted = fit(data, kind)
    return {
        name: modelled(ArchConfig.from_dict(r["arch"]), kind, fitted) / used(r, kind) - 1
        for name, r in sorted(data.items())
    }


def main() -> None:
    """Synthesise, fit, show."""
    parser = argparse.ArgumentParser(prog="python -m bench.area", description=__doc__)
    parser.add_argument("cores", nargs="*", help="small cores or presets (default: small cores)")
    parser.add_argument("--fit", action="store_true", help="no synthesis")
    options = parser.parse_args()
    if not options.fit:
        synthesise_missing(options.cores or list(_SMALL))
    data = known()
    for kind in ("luts", "ffs"):
        print(kind)
        for unit, (coefficients, ratio) in fit(data, kind).items():
            rounded = {name: round(value, 2) for name, value in coefficients.items()}
            print(f'    "{unit}": ({rounded}, {ratio:.3f}),')
        for name, error in errors(data, kind).items():
            print(f"  {name}: {used(data[name], kind):,.0f}, {error:+.1%} "
                  f"{'held out' * held_out(name)}")


if __name__ == "__main__":
    main()
