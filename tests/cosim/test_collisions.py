"""No result hangs on what a memory gives for a word that is being written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.collisions import spoil_collisions
from tests.support.mixtures import CASES, mixture, program_of
from tests.support.synthetic import vision_transformer
from tests.unit.compiler.test_heads import CASES as HEADS
from vitrify.arch.presets import preset
from vitrify.compiler import compile_graph
from vitrify.cosim.check import Checker
from vitrify.cosim.core import DramModel, SimulatedCore
from vitrify.cosim.jobs import run_jobs
from vitrify.cosim.library import build
from vitrify.rtl.emit import verilog

NANO = preset("nano")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def text():
    return verilog(NANO, trace=True)


@pytest.fixture(scope="module")
def spoiled(text):
    return build(spoil_collisions(text)[0], NANO)


def test_what_is_spoiled(text):
    changed, names = spoil_collisions(text)
    # Queues, token and index memories, accumulators, statistics, sums, gains, parameters.
    assert {"storage", "memory", "fetch", "work", "drained", "norm_partial", "max_partial", "sums",
            "gains", "bias_0"} <= set(names)
    assert changed.count("<= ~") >= len(names)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_results(spoiled, name, stall):
    case = CASES[name]
    compare(spoiled, program_of(NANO, mixture(NANO, 4, case), case), stall)


@pytest.mark.parametrize("name", ["two of three", "wide heads, always on", "balanced, wide"])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_heads(spoiled, name, stall):
    graph = vision_transformer(seed=3, **{"heads": 4} | HEADS[name][1])
    compare(spoiled, compile_graph(graph, NANO), stall)


def compare(spoiled, program, stall):
    """Three jobs, every tensor."""
    regions = np.random.default_rng(3).integers(0, 256, (3, program.input_bytes)).astype(np.uint8)
    tasks = [task % 2 for task in range(len(regions))]
    core = SimulatedCore(spoiled, NANO, DramModel(latency=9, outstanding=3, stall=stall, seed=5))
    checker = Checker(program, regions, core.state().matmuls, tasks)
    result = run_jobs(core, program, regions, tasks=tasks, inspect=checker.feed)
    checker.close(result.outputs)
    core.close()
    assert checker.compared == len(regions) * len(program.layers)
