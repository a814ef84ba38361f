"""Backend ``rtl``: the core's Verilog, compiled by Verilator, behind a DRAM with limits.

Options
-------
``check``
    Compare every tensor with the golden machine; stop at the first difference.
``trace``
    Waveform (FST) to write: all of it, or ``trace_depth`` levels of the hierarchy, the layer
    ``trace_layer`` of the first job, the cycles ``trace_cycles`` ``(first, behind the last)``.
``latency``, ``outstanding``
    The DRAM: cycles to the first beat, bursts in flight.  Default: the architecture's.
``dram``
    What limits its bandwidth: a board's name (its memory, with refresh, turn-around and row
    misses), ``ideal`` (a beat a cycle each way).  Default: the architecture's.
``bytes_per_cycle``
    Bandwidth each way of an ideal memory.
``stall``, ``seed``
    Probability of random stalls on the bus, for tests.
``activity``
    Keep what the engines do when, as ``statistics.activity``.
``progress``
    Called as ``progress(done, total)`` in layers.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from vitrify.arch.boards import board
from vitrify.arch.config import ArchConfig
from vitrify.arch.dram import Dram
from vitrify.arch.errors import InputError
from vitrify.arch.isa import Opcode
from vitrify.cosim.check import Checker
from vitrify.cosim.core import ENGINES, DramModel, SimulatedCore, Waveform
from vitrify.cosim.jobs import PARTS, Watched, run_jobs
from vitrify.cosim.library import core_library
from vitrify.program import Application, Program
from vitrify.runtime.activity import ARRAY_STATES, BUCKET, Activity, Span
from vitrify.runtime.backend import (
    Backend,
    ProgramBackend,
    Progress,
    UInt8,
    check_options,
    need_program,
    no_progress,
)
from vitrify.runtime.statistics import Statistics, counted, of_program

#: Levels of the hierarchy that any core has at most.
_DEEPEST = 99

OPTIONS = (
    "check",
    "trace",
    "trace_depth",
    "trace_layer",
    "trace_cycles",
    "activity",
    "latency",
    "outstanding",
    "bytes_per_cycle",
    "dram",
    "stall",
    "seed",
    "progress",
)


class RtlBackend(ProgramBackend):
    """Cycle-true simulation of the emitted Verilog.

    Every run has a core of its own, from reset: threads may share a session, and only wait for
    each other where they would write the same waveform.
    """

    name = "rtl"

    def __init__(
        self,
        program: Program,
        *,
        check: bool = False,
        trace: Path | str | None = None,
        trace_depth: int | None = None,
        trace_layer: str | None = None,
        trace_cycles: tuple[int, int] | None = None,
        activity: bool = False,
        progress: Progress | None = None,
        latency: int | None = None,
        outstanding: int | None = None,
        bytes_per_cycle: float | None = None,
        dram: str | None = None,
        stall: float = 0.0,
        seed: int = 1,
    ) -> None:
        super().__init__(program)
        given = {"latency": latency, "outstanding": outstanding}
        self._dram = DramModel.of(
            _behind(program.arch, "ideal" if dram is None and bytes_per_cycle else dram),
            bytes_per_cycle=bytes_per_cycle,
            stall=stall,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},
        )
        self._check, self._watch = check, activity
        self._trace = _waveform(program, trace, trace_depth, trace_layer, trace_cycles)
        self._alone = nullcontext() if trace is None else Lock()
        self._progress = progress or no_progress
        self._library = core_library(
            program.arch, fst=trace is not None, say=getattr(progress, "say", lambda _: None)
        )

    def execute(
        self, regions: UInt8, tasks: Sequence[int], images: int
    ) -> tuple[UInt8, Callable[[], Statistics]]:
        """One queued job after the other."""
        program = self.program
        with self._alone:
            core = SimulatedCore(self._library, program.arch, self._dram, self._trace)
            try:
                checker = Checker(program, regions, tasks=tasks) if self._check else None
                result = run_jobs(
                    core,
                    program,
                    regions,
                    tasks=tasks,
                    progress=self._progress,
                    inspect=checker.feed if checker else None,
                    bucket=BUCKET if self._watch else 0,
                )
                if checker is not None:
                    checker.close(result.outputs)
            finally:
                core.close()

        def cost() -> Statistics:
            statistics = counted(
                of_program(program, self.name, images, result.layer_cycles, result.skipped),
                result.counters,
            )
            if result.watched is not None:
                statistics.activity = _activity(program, result.watched)
            return statistics

        return result.outputs, cost


def _waveform(
    program: Program, file: Path | str | None, depth: int | None, layer: str | None,
    cycles: tuple[int, int] | None,
) -> Waveform | None:
    """What is wanted of a waveform, checked before a simulator is built."""
    parts: dict[str, Any] = {}
    if depth is not None:
        if not 1 <= depth <= _DEEPEST:
            raise InputError(f"the depth of a trace must be 1 to {_DEEPEST}, not {depth}")
        parts["depth"] = depth
    if cycles is not None:
        first, end = cycles
        if not 0 <= first < end < 1 << 64:
            raise InputError(
                f"a trace needs a first cycle of at least 0 and a later end, not {first}:{end}"
            )
        parts["cycles"] = cycles
    if layer is not None:
        parts["matmuls"] = _matmuls(program, layer)
    if file is None:
        if parts:
            raise InputError("the trace's depth, cycles and layer need a trace (--trace FILE.fst)")
        return None
    return Waveform(Path(file), **parts)


def _matmuls(program: Program, layer: str) -> tuple[int, int]:
    """The first and the last MATMUL of a layer."""
    names = [info.name for info in program.layers]
    found = [n for n, name in enumerate(names) if name == layer or name.startswith(f"{layer}.")]
    if not found:
        near = difflib.get_close_matches(layer, names, 1, 0)
        raise InputError(
            f"the program has no layer {layer!r}{f'; did you mean {near[0]!r}?' if near else ''} "
            f"(`vitrify info --layers` lists them)"
        )
    if any(op.expert_rows for op in program.instructions() if op.opcode is Opcode.MATMUL):
        raise InputError(
            "the program has experts, and which of its layers run depends on the image: say the "
            "cycles of the trace instead (--trace-cycles)"
        )
    return found[0], found[-1]


#: What the harness calls the states of an engine, from 1 on; those of the array are counters.
_STATES = {
    "loader": ("words", "weights"), "array": ARRAY_STATES, "epilogue": ("results",),
    "router": ("ROUTE",), "loads": ("words",), "stores": ("STORE",), "bus": tuple(PARTS),
}


def _activity(program: Program, watched: Watched) -> Activity:
    """Spans from the cycle in which the first job began."""
    found = watched.stretches[np.argsort(watched.stretches["begin"], kind="stable")]
    array = found[found["engine"] == ENGINES.index("array")]
    start = int(array["begin"][0])
    opcodes = [op.opcode.name for op in program.instructions()]
    spans: list[Span] = []
    for begin, end, number, engine, state, _ in found[found["begin"] >= start].tolist():
        name, matmul = ENGINES[engine], -1
        if name == "instructions":
            label = opcodes[number % len(opcodes)]
        else:
            label = _STATES[name][state - 1]
        if name == "array" and number < len(watched.matmuls):
            matmul = watched.matmuls[number]  # the fetch does not count those without rows
        elif name == "epilogue":
            matmul = number % len(program.layers)
        spans.append(Span(name, label, begin - start, end - start, matmul))
    # The first bucket begins up to 63 cycles before the job.
    traffic = watched.read_bytes[start // BUCKET :].astype(np.int64)
    return Activity("rtl", int(array["end"][-1]) - start, spans, traffic)


def _behind(arch: ArchConfig, dram: str | None) -> ArchConfig:
    """``arch`` with another memory behind its ports."""
    if dram is None:
        return arch
    if dram == "ideal":
        kept = Dram(latency=arch.dram.latency, outstanding=arch.dram.outstanding)
    else:
        kept = board(dram).memory.dram
    return dataclasses.replace(arch, dram=kept)


def create(
    model: Program | Application | Path, _preprocess: str | None, options: Mapping[str, Any]
) -> Backend:
    """Backend for a program."""
    check_options("rtl", options, OPTIONS)
    return RtlBackend(need_program("rtl", model), **options)
