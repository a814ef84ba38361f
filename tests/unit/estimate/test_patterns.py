"""Access patterns: the simulated core's cycles as predicted, its results as golden has them."""

from __future__ import annotations

import numpy as np
import pytest

from vitrify.arch.isa import Output
from vitrify.arch.presets import preset
from vitrify.cosim.core import DramModel, SimulatedCore
from vitrify.cosim.jobs import run_jobs
from vitrify.cosim.library import core_library
from vitrify.estimate.core import timeline
from vitrify.selftest.patterns import access_patterns
from vitrify.selftest.speed import as_program

NANO = preset("nano")
#: The whole program has loads and stores everywhere, which compiled ones have at their ends.
TOTAL = 0.07
#: Cycles of a MATMUL that follows another, from one's last write to the other's.
ONE = 4


@pytest.mark.parametrize("seed", [1, 2])
def test_cycles_and_results(seed: int) -> None:
    job = access_patterns(NANO, seed)
    program = as_program(NANO, job)
    core = SimulatedCore(core_library(NANO), NANO, DramModel.of(NANO))
    try:
        result = run_jobs(core, program, job.input[None])
    finally:
        core.close()
    known = job.output_known
    assert np.array_equal(result.outputs[0][: len(known)][known], job.output[known])
    times = timeline(program)
    measured, predicted = result.counters["CYCLES"], times.cycles
    assert abs(predicted - measured) <= TOTAL * measured, (predicted, measured)
    assert result.layer_cycles is not None
    ends = np.array([matmul.results.last_write for matmul in times.matmuls if matmul])
    code, checked = list(program.instructions()), 0
    for layer, took, steps in zip(
        program.layers[1:], result.layer_cycles[1:], np.diff(ends).tolist(), strict=True
    ):
        # Maxima over taps, and windows.
        op = code[layer.instruction]
        if (op.combine and op.output == Output.ADD8) or op.repeats:
            assert abs(took - steps) <= ONE, f"{op}: {steps} cycles, not {took}"
            checked += 1
    assert checked == 5
