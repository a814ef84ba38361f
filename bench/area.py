"""``python -m bench.area``: LUTs and flip-flops by Yosys, and the model that is fitted to them.

Every core is synthesised once (minutes each); what is on file is not done again.  Then the
coefficients of :mod:`vitrify.arch.area` are fitted to the cores that are not held out, and the
errors of both groups are shown, those of fitted cores with the core left out.  ``--fit`` fits
only.

On file are the presets (docs/resources.md), with one memory port: what several ports add is
counted, not fitted.  The thirty small cores, ten of them held out, take an hour or two.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import ROOT
from vitrify.arch.area import FEATURES, features
from vitrify.arch.boards import XCZU9EG
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset

DATA = ROOT / "bench" / "results" / "area" / "cores.json"
#: name: depth, width, lanes, banks, experts, stored, packing, fabric.
_SMALL: dict[str, tuple[int, int, int, int, int, bool, bool, bool]] = {
    "a0": (4, 4, 2, 2, 0, False, False, False), "a1": (8, 8, 4, 4, 0, False, True, False),
    "a2": (16, 8, 2, 4, 0, False, False, True), "a3": (8, 16, 8, 2, 8, False, True, False),
    "a4": (16, 16, 4, 8, 0, True, True, True), "a5": (4, 16, 4, 6, 0, True, False, True),
    "a6": (8, 4, 1, 8, 8, True, False, True), "a7": (16, 4, 4, 2, 0, False, True, False),
    "a8": (4, 8, 4, 4, 8, False, True, True), "a9": (8, 8, 2, 2, 0, True, False, False),
    "b0": (16, 16, 8, 4, 8, False, False, False), "b1": (4, 32, 2, 2, 0, False, True, False),
    "b2": (8, 32, 8, 4, 0, True, True, False), "b3": (32, 4, 4, 2, 0, False, False, True),
    "b4": (32, 8, 8, 4, 8, False, True, True), "b5": (16, 32, 2, 2, 0, False, True, False),
    "b6": (8, 4, 4, 12, 0, False, False, False), "b7": (4, 4, 4, 2, 16, False, False, False),
    "b8": (16, 8, 8, 6, 0, True, True, True), "b9": (8, 16, 2, 8, 0, False, False, True),
    "h0": (8, 8, 8, 6, 8, False, False, False), "h1": (16, 8, 4, 2, 0, False, True, True),
    "h2": (4, 16, 2, 4, 0, False, True, False), "h3": (8, 4, 2, 4, 0, True, False, True),
    "h4": (16, 16, 2, 4, 0, False, True, False), "h5": (32, 8, 4, 2, 0, False, True, False),
    "h6": (8, 32, 4, 2, 0, False, False, True), "h7": (4, 8, 1, 8, 0, False, False, False),
    "h8": (16, 4, 2, 6, 8, True, True, False), "h9": (8, 16, 4, 4, 0, True, True, False),
}


def cores() -> dict[str, ArchConfig]:
    """The small cores; those whose names begin with ``h`` are held out."""
    nano, found = preset("nano"), {}
    for name, (depth, width, lanes, banks, experts, stored, packing, fabric) in _SMALL.items():
        found[name] = dataclasses.replace(
            nano, name=name, depth=depth, width=width, lanes=lanes, banks=banks, experts=experts,
            stored_weights=stored, packing=packing, fabric_multipliers=fabric,
            bus_bytes=min(4, depth), part=XCZU9EG, requant_bits=24,
        )
    return found


def held_out(name: str) -> bool:
    """Whether a core tests the model."""
    return name.startswith("h")


def known() -> dict[str, Any]:
    """What is on file: per core its settings, family, LUTs and flip-flops."""
    return json.loads(DATA.read_text()) if DATA.is_file() else {}


def synthesise_missing() -> None:
    """Synthesise what is not on file, one after the other."""
    from vitrify.arch.names import module_name
    from vitrify.boards.synthesis import synthesise
    from vitrify.rtl.emit import emit

    # Fitted and held-out cores in turn, so that whatever is there can be used.
    names = sorted(_SMALL, key=lambda name: (int(name[1]), name[0]))
    for name in names:
        if name in known():
            continue
        arch = cores()[name]
        with tempfile.TemporaryDirectory() as folder:
            source = emit(arch, Path(folder))
            used = synthesise(arch, source, module_name(arch), Path(folder) / "work")
        found = known()
        found[name] = {"arch": arch.to_dict(), "luts": used.luts, "ffs": used.ffs,
                       "dsps": used.dsps, "brams": used.brams}
        DATA.parent.mkdir(parents=True, exist_ok=True)
        DATA.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(f"{name}: {used.luts:,.0f} LUTs, {used.ffs:,.0f} FFs", flush=True)


def fit(data: dict[str, Any], kind: str, without: str = "") -> npt.NDArray[np.float64]:
    """Coefficients that are not negative, for the least relative error."""
    rows = [r for name, r in sorted(data.items()) if not held_out(name) and name != without]
    a = np.array([features(ArchConfig.from_dict(r["arch"])) for r in rows], float)
    b = np.array([r[kind] for r in rows], float)
    a, used = a / b[:, None], np.ones(len(FEATURES), bool)
    while True:
        found = np.zeros(len(FEATURES))
        found[used] = np.linalg.lstsq(a[:, used], np.ones(len(b)), rcond=None)[0]
        if (found >= 0).all():
            return found
        used[int(found.argmin())] = False


def errors(data: dict[str, Any], kind: str) -> dict[str, float]:
    """Relative error of the model for each core, fitted without it."""
    found = {}
    for name, r in sorted(data.items()):
        coefficients = fit(data, kind, without=name)
        told = float(np.dot(features(ArchConfig.from_dict(r["arch"])), coefficients))
        found[name] = told / r[kind] - 1
    return found


def main() -> None:
    """Synthesise, fit, show."""
    parser = argparse.ArgumentParser(prog="python -m bench.area", description=__doc__)
    parser.add_argument("--fit", action="store_true", help="no synthesis")
    if not parser.parse_args().fit:
        synthesise_missing()
    data = known()
    for kind in ("luts", "ffs"):
        coefficients = fit(data, kind)
        print(kind, dict(zip(FEATURES, coefficients.round(2).tolist(), strict=True)))
        for name, error in errors(data, kind).items():
            mark = "held out" if held_out(name) else ""
            print(f"  {name}: {data[name][kind]:,.0f}, {error:+.1%} {mark}")


if __name__ == "__main__":
    main()
