"""Blocks of experts on the compiled core: every result, and what is fetched from DRAM."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.mixtures import CASES, Case, mixture, program_of
from vitrify.arch.isa import Opcode
from vitrify.arch.presets import preset
from vitrify.cosim.check import Checker
from vitrify.cosim.core import DramModel, SimulatedCore
from vitrify.cosim.jobs import run_jobs
from vitrify.cosim.library import core_library
from vitrify.golden.machine import Machine

NANO = preset("nano")
#: C > K, E = K, and a number of experts that fills no group of logits.
TALL = dataclasses.replace(
    NANO, name="tall_experts", depth=4, width=8, lanes=4, bus_bytes=4, experts=7
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library():
    return core_library(NANO)


@pytest.fixture(scope="module")
def tall_library():
    return core_library(TALL)


@pytest.fixture
def core(library):
    simulated = SimulatedCore(library, NANO, DramModel(latency=20, outstanding=4))
    yield simulated
    simulated.close()


def weight_bytes(program, region: np.ndarray, task: int) -> int:
    """Bytes of the weight streams that golden makes use of."""
    used = 0

    def observe(_index, op, values) -> None:
        nonlocal used
        used += op.stream_words * program.arch.depth if len(values) else 0

    Machine(program.arch).run(program.image, program.instruction_count, region,
                              program.output_bytes, observe, task)
    return used


def run(core, name: str, case: Case, tasks: list[int]) -> tuple[int, int, list[bytes]]:
    """Bytes read by a batch, weights of them by golden's account, and the outputs."""
    made = mixture(core.arch, 4, case)
    program = program_of(core.arch, made, case)
    random = np.random.default_rng(6)
    regions = random.integers(0, 256, (len(tasks), program.input_bytes)).astype(np.uint8)
    checker = Checker(program, regions, core.state().matmuls, tasks)
    before = core.state().read_beats
    result = run_jobs(core, program, regions, tasks=tasks, inspect=checker.feed)
    checker.close(result.outputs)
    assert checker.compared == len(tasks) * len(program.layers), name
    weights = sum(
        weight_bytes(program, region, task) for region, task in zip(regions, tasks, strict=True)
    )
    read = (core.state().read_beats - before) * core.arch.bus_bytes
    return read, weights, [output.tobytes() for output in result.outputs]


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("arch", [NANO, TALL], ids=lambda arch: arch.name)
def test_every_case(request, arch, name, stall):
    built = request.getfixturevalue("library" if arch is NANO else "tall_library")
    dram = DramModel(latency=7, outstanding=2, stall=stall, seed=len(name))
    core = SimulatedCore(built, arch, dram)
    run(core, name, CASES[name], [CASES[name].task, 1])
    core.close()


def test_weights_of_idle_experts_are_not_fetched(core):
    rest = set()
    for name, case in CASES.items():
        # Programs with the same instructions, loads and prefetch.
        if case.rows == 18 and case.logits is not None and not case.chunk:
            read, weights, _ = run(core, name, case, [0])
            rest.add(read - weights)
    assert len(rest) == 1, rest


def test_jobs_with_tasks_of_their_own(core):
    case = CASES["gate"]
    tasks = [0, 1, 2, 1]
    _, _, outputs = run(core, "gate", case, tasks)
    assert len(set(outputs)) == len(tasks)


def test_two_images_share_the_experts(core):
    """As rows of one job: one fetch of each expert that either needs."""
    case = CASES["two_images_of_two_tasks"]
    shared, weights, _ = run(core, "shared", case, [1 | 2 << 8])
    single = dataclasses.replace(case, images=1, rows=9)
    apart, more, _ = run(core, "apart", single, [1, 2])
    assert weights < more
    assert shared < apart


def test_layers_without_rows_take_no_time(core):
    case = CASES["all_to_the_first"]
    program = program_of(NANO, mixture(NANO, 4, case), case)
    region = np.zeros((1, program.input_bytes), np.uint8)
    cycles = run_jobs(core, program, region).layer_cycles
    assert cycles is not None
    ops = [op for op in program.instructions() if op.opcode is Opcode.MATMUL]
    idle = [c for op, c in zip(ops, cycles, strict=True) if op.expert_rows and op.expert > 0]
    assert sum(idle) < sum(cycles) / 4
