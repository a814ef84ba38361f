"""Published systems, all the way: which run, how well, in how many cycles, as the core does.

``python -m tests.systems [NAME ...]`` prints a row for every export of ``tests/data/systems`` and
``tests/data/tokens`` (whose name holds one of the names): the largest deviation of the canonical
graph, what runs where, the signal-to-noise ratio of the worst output on golden and that of what
differs between images alone, the roofline in cycles.  With ``--rtl`` the simulated ``nano`` runs
as well, every tensor compared with golden, and its cycles are printed instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from tests.support.ratio import decibel
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError, UnsupportedOpError, VitrifyError
from vitrify.arch.presets import preset
from vitrify.compiler import compile_application
from vitrify.frontend import canonicalise, load
from vitrify.ir import evaluate, shape_of
from vitrify.program import Application, Program
from vitrify.runtime import InferenceSession

DATA = Path(__file__).parent / "data"
NANO = preset("nano")
#: For what does not fit the memories of ``nano``.
LARGER = dataclasses.replace(
    NANO, name="nano-larger", max_rows=64, bank_words=1024, stat_rows=512, index_entries=512
)
SEED, CALIBRATION, JUDGED, SIMULATED = 6, 32, 8, 2
#: Numbers of tasks that models have at least.
TASKS = 2


def files(*names: str) -> list[Path]:
    """Every export whose name holds one of the names; all without any."""
    every = sorted([*DATA.glob("systems/*.onnx"), *DATA.glob("tokens/*.onnx")])
    return [path for path in every if not names or any(name in path.stem for name in names)]


def feeds(model: ir.Model, count: int) -> dict[str, np.ndarray]:
    """Random images, and task numbers where the model has them."""
    rng, found = np.random.default_rng(SEED), {}
    for value in model.graph.inputs:
        shape = [count, *(int(size) for size in shape_of(value)[1:])]
        found[value.name or ""] = (
            np.arange(count) % TASKS if value.dtype == ir.DataType.INT64
            else rng.standard_normal(shape, np.float32)
        )  # fmt: skip
    return found


def deviation(path: Path) -> float | None:
    """Of the canonical graph, relative to the largest output; ``None`` where there is none."""
    model = load(path)
    names, given = [value.name or "" for value in model.graph.outputs], feeds(model, 3)
    try:
        canonical = canonicalise(model)
    except UnsupportedOpError:
        return None
    wanted, found = (evaluate(each, given, names) for each in (model, canonical))
    return max(
        float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max())
        for name in names
    )


@dataclass(frozen=True)
class Judged:
    """A compiled system and its outputs on golden beside those of ONNX Runtime."""

    program: Program | Application
    arch: ArchConfig
    given: Mapping[str, np.ndarray]
    found: Mapping[str, np.ndarray]
    wanted: Mapping[str, np.ndarray]

    @property
    def snr(self) -> float:
        """Of the worst output, in dB."""
        return min(decibel(self.wanted[name], found) for name, found in self.found.items())

    @property
    def own(self) -> float:
        """Of what differs between images alone."""
        pairs = [(self.wanted[name], found) for name, found in self.found.items()]
        return min(decibel(wanted, found, wanted.mean(0)) for wanted, found in pairs)

    @property
    def place(self) -> str:
        """Where it runs: parts of the core and of the host in turn."""
        if isinstance(self.program, Program):
            return "core"
        return ", ".join(type(part).__name__.removesuffix("Part").lower()
                         for part in self.program.parts)  # fmt: skip

    @property
    def cycles(self) -> int:
        """The roofline."""
        whole = self.program
        programs = [whole] if isinstance(whole, Program) else whole.programs
        return sum(program.roofline_cycles for program in programs)


def judged(path: Path) -> Judged:
    """Compile an export for ``nano``, or ``LARGER`` where that is too small; run golden."""
    model = load(path)
    names, given = [value.name or "" for value in model.graph.outputs], feeds(model, CALIBRATION)
    images = next(iter(given.values()))
    arch = NANO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise is no photograph
        try:
            program = compile_application(path, arch, images)
        except CapacityError:
            arch = LARGER
            program = compile_application(path, arch, images)
    few = {name: array[:JUDGED] for name, array in given.items()}
    with InferenceSession(program, "golden") as session:
        found = session.run(names, few)
    return Judged(
        program, arch, few, dict(zip(names, found, strict=True)), evaluate(load(path), few, names)
    )


def simulated(case: Judged) -> int:
    """Cycles of an image on the simulated core; every tensor must be golden's."""
    few = {name: array[:SIMULATED] for name, array in case.given.items()}
    with InferenceSession(case.program, "rtl", check=True, stall=0.1, seed=SEED) as session:
        found = session.run(list(case.found), few)
        statistics = session.statistics
    for name, array in zip(case.found, found, strict=True):
        np.testing.assert_array_equal(array, case.found[name][:SIMULATED], err_msg=name)
    assert statistics is not None
    assert statistics.cycles is not None
    return statistics.cycles // SIMULATED


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rtl", action="store_true", help="run the simulated core as well")
    options = parser.parse_args()
    for path in files(*options.names):
        apart = deviation(path)
        row = "refused" if apart is None else f"{apart:.0e}"
        try:
            case = judged(path)
            row += f" | {case.place} | {case.snr:.1f} | {case.own:.1f} | "
            row += f"{simulated(case):,} | equal" if options.rtl else f"{case.cycles:,}"
            row += "" if case.arch is NANO else f" | {case.arch.name}"
        except (VitrifyError, AssertionError) as error:
            row += f" | {type(error).__name__}: {error}"
        print(f"{path.stem} | {row}", flush=True)


if __name__ == "__main__":
    main()
