"""Run a cocotb bench on an Amaranth component: emit, build (cached), simulate, judge.

A test is two files: ``tests/cosim/test_<unit>.py`` calls :func:`simulate` from an ordinary pytest
function, and ``tests/cosim/benches/<unit>_bench.py`` holds the coroutines, which use
:mod:`vitrify.cosim.bench`::

    def test_transform(arch):
        simulate(Transform(arch), "transform", BENCHES / "transform_bench.py", arch=arch)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import cocotb_tools.runner
from amaranth.lib import wiring
from cocotb_tools.check_results import get_results

from vitrify.arch.config import ArchConfig
from vitrify.rtl.lib.shared import to_verilog

from . import toolchain

#: Environment variables that stand in for arguments (set by pytest's --seed and --waves).
SEED_VARIABLE = "VITRIFY_SEED"
WAVES_VARIABLE = "VITRIFY_WAVES"
#: Carries the bench's settings into the simulator process.
BENCH_VARIABLE = "VITRIFY_BENCH"

_TOP = "dut"
#: Memories begin with random contents: nothing may depend on them.
_VERILATOR_ARGS = ("-O3", "--x-assign", "fast", "--x-initial", "unique", "-Wno-fatal", "-Wno-lint")
#: Constructors list every public signal: tens of thousands of calls that only run once.
_OPTIMISE = "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"


def emit(component: wiring.Component, name: str = _TOP) -> str:
    """Verilog text of a component, the same for every run."""
    return to_verilog(component, name)


def inputs(component: wiring.Component) -> list[str]:
    """Verilog names of a component's input ports."""
    return [
        "__".join(str(part) for part in path)
        for path, member, _value in component.signature.flatten(component)
        if member.flow == wiring.In
    ]


def simulate(
    component: wiring.Component,
    name: str,
    bench: Path,
    *,
    arch: ArchConfig | None = None,
    options: dict[str, Any] | None = None,
    simulator: str = "verilator",
    seed: int | None = None,
    waves: bool | None = None,
    testcase: str | None = None,
) -> None:
    """Build ``component`` and run every cocotb test of ``bench`` on it.

    Parameters
    ----------
    component : the design, not yet elaborated
    name : prefix of the build folder
    bench : Python file with ``@cocotb.test()`` coroutines; its folder becomes importable
    arch, options : what ``bench.arch()`` and ``bench.option(name)`` return in the coroutines;
        options must be JSON
    simulator : ``verilator`` or ``icarus``
    seed : of ``random`` and of ``bench.rng()``; default $VITRIFY_SEED, else drawn; printed
    waves : write a waveform (its path is printed); default $VITRIFY_WAVES
    testcase : run only this coroutine

    Raises
    ------
    AssertionError
        If a cocotb test failed, none ran, or the simulator died; the log is printed before.
    """
    if seed is None:
        seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(1 << 31))
    if waves is None:
        waves = os.environ.get(WAVES_VARIABLE, "0") not in ("", "0")
    settings = {
        "arch": arch and arch.to_dict(),
        "options": options or {},
        "inputs": inputs(component),
        "seed": seed,
    }
    build_dir = _build(emit(component), name, simulator, waves)
    run_dir = Path(tempfile.mkdtemp(prefix="run-", dir=build_dir))
    log, results = run_dir / "log.txt", run_dir / "results.xml"
    runner = cocotb_tools.runner.get_runner(simulator)
    runner.hdl_toplevel = _TOP
    print(f"{name}: {simulator}, seed {seed} (repeat with {SEED_VARIABLE}={seed})")
    with (
        toolchain.environment(toolchain.verilator_environment()),
        # The runner takes the simulator's PYTHONPATH from here.
        mock.patch.object(sys, "path", [str(bench.resolve().parent), *sys.path]),
        # It exits when the simulator or a test fails; the results say which.
        contextlib.suppress(SystemExit),
    ):
        runner.test(
            test_module=bench.stem, hdl_toplevel=_TOP, hdl_toplevel_lang="verilog",
            build_dir=build_dir, test_dir=run_dir, results_xml=str(results),
            seed=seed, waves=waves, testcase=testcase, log_file=log, timescale=("1ns", "1ps"),
            plusargs=_random_contents(simulator, seed),
            extra_env={BENCH_VARIABLE: json.dumps(settings), "COCOTB_ANSI_OUTPUT": "0"},
        )
    print(log.read_text(errors="replace") if log.is_file() else "the simulator wrote no log")
    assert results.is_file(), f"{name}: the simulation ended without results, see the log above"
    ran, failed = get_results(results)
    assert ran > 0, f"{name}: {bench.name} has no cocotb test"
    assert not failed, f"{name}: {failed} of {ran} cocotb tests failed with seed {seed}"
    if waves:
        print(f"waves: {run_dir if simulator == 'verilator' else build_dir}")
    else:
        shutil.rmtree(run_dir)


def _random_contents(simulator: str, seed: int) -> list[str]:
    if simulator != "verilator":
        return []
    return ["+verilator+rand+reset+2", f"+verilator+seed+{seed % ((1 << 31) - 1) + 1}"]


def _build(text: str, name: str, simulator: str, waves: bool) -> Path:
    """Folder with the simulator built from ``text``; an equal build is reused."""
    tools = json.dumps([simulator, toolchain.verilator_version(), metadata.version("cocotb"),
                        _VERILATOR_ARGS, _OPTIMISE, waves])
    variables = toolchain.verilator_environment()
    variables["MAKEFLAGS"] += f" {_OPTIMISE}"
    root = toolchain.build_root() / "cosim"
    folder = root / f"{name}-{_digest(tools + text)}"
    runtime = root / f"runtime-{_digest(tools)}"
    done = folder / "built"
    with toolchain.locked(folder.with_suffix(".lock")):
        if done.is_file():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = folder / f"{_TOP}.v"
        source.write_text(text)
        _borrow_runtime(runtime, folder)
        log = folder / "build.txt"
        with (
            toolchain.environment(variables),
            # Tests already run in parallel.
            mock.patch.object(cocotb_tools.runner, "MAX_PARALLEL_BUILD_JOBS", 1),
        ):
            try:
                cocotb_tools.runner.get_runner(simulator).build(
                    sources=[source], hdl_toplevel=_TOP, build_dir=folder, waves=waves,
                    always=True, log_file=log, timescale=("1ns", "1ps"),
                    build_args=_VERILATOR_ARGS if simulator == "verilator" else (),
                )
            except Exception as error:
                print(log.read_text(errors="replace") if log.is_file() else "")
                raise AssertionError(f"{name}: {simulator} could not build the design") from error
        _keep_runtime(folder, runtime)
        done.touch()
    return folder


# Most of a small Verilator build is its run-time library, the same for every design.  ``make``
# does not compile an object again that is newer than the makefile, which is yet to be written.
def _borrow_runtime(runtime: Path, folder: Path) -> None:
    later = time.time() + 3600
    for built in runtime.glob("verilated*.o"):
        os.utime(shutil.copy(built, folder), (later, later))


def _keep_runtime(folder: Path, runtime: Path) -> None:
    with toolchain.locked(runtime.with_suffix(".lock")):
        runtime.mkdir(exist_ok=True)
        for built in folder.glob("verilated*.o"):
            if not (runtime / built.name).exists():
                partial = runtime / f"{built.name}.partial"
                shutil.copy(built, partial)
                partial.rename(runtime / built.name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

