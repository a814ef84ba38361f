"""Random networks on random cores: integer graph = program on golden = core in simulation.

``python -m tests.fuzz graphs --count 3000 --seed 1`` compares the evaluator of the integer graph
with the program on golden, bit by bit; ``--rtl 300`` runs so many programs on simulated cores of
`nano`'s size, too, each tensor compared, with random latency and stalls of the memory.
``--weights 4`` gives weights four bits.  What the compiler refuses is counted by its reason.
``--case N`` repeats one with its traceback.
"""

from __future__ import annotations

import argparse
import collections
import functools
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.fuzz.networks import BUILT, Network, core
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError, CapacityError, ModelError, VitrifyError
from vitrify.compiler import compile_graph
from vitrify.compiler.quantise import quantise
from vitrify.compiler.validate import check_program
from vitrify.ir import verify
from vitrify.program import Program, pack_input, registers
from vitrify.quant.wanted import EIGHT, NARROW, WIDE, Weights

#: Random settings of the simulated memory.
LATENCIES, STALLS = (1, 5, 20, 80, 300), (0.0, 0.0, 0.2, 0.5)


@dataclass(frozen=True)
class Compiled:
    """One case that was not refused."""

    program: Program
    images: np.ndarray


def compiled(
    seed: int, number: int, arch: ArchConfig | None = None, weights: Weights = EIGHT
) -> Compiled:
    """Make the network, quantise, compile, and compare the program with the integer graph.

    ``arch`` instead of a random core.
    """
    rng = np.random.default_rng([seed, number])
    chosen = core(rng)
    if arch is not None:
        chosen = arch
    network = Network(rng, chosen.experts)
    verify(network.model)
    images = network.images(5)
    graph = quantise(network.model, images, arch=chosen, weights=weights)
    batch = int(rng.choice([1, 1, 2, 3, 4]))
    program = compile_graph(graph, chosen, batch=batch)
    check_program(program, graph, images)
    return Compiled(program, images)


def run(seed: int, number: int, weights: Weights = EIGHT) -> str:
    """``ok``, a refusal, or what went wrong."""
    return _verdict(functools.partial(compiled, weights=weights), seed, number)


def _verdict(case: Callable[[int, int], object], seed: int, number: int) -> str:
    try:
        case(seed, number)
    except (ModelError, CapacityError) as error:
        return "refused: " + _reason(error)
    except VitrifyError as error:
        return f"WRONG {type(error).__name__}: {error}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"CRASH {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return "ok"


def _reason(error: VitrifyError) -> str:
    """The sentence without names and numbers, so that alike ones count together."""
    text = re.sub(r"'[^']*'|^[\w.]+(?=:)|\([A-Z]\w+\)", "…", str(error).splitlines()[0])
    return re.sub(r"[\d.]+(e-?\d+)?", "#", text)[:100]


class Simulation:
    """The simulated core of one arch, its library built once."""

    def __init__(self, arch: ArchConfig) -> None:
        from vitrify.cosim.library import core_library

        self._arch, self._library = arch, core_library(arch)

    def run(self, seed: int, number: int) -> str:
        """As :func:`run`, and on the core."""
        return _verdict(self.simulate, seed, number)

    def simulate(self, seed: int, number: int, weights: Weights = EIGHT) -> None:
        """Compare a case on the core with golden; what goes wrong is raised."""
        from vitrify.cosim.check import Checker
        from vitrify.cosim.core import DramModel, SimulatedCore
        from vitrify.cosim.jobs import run_jobs

        case = compiled(seed, number, self._arch, weights)
        rng = np.random.default_rng([seed, number, 1])
        program = case.program
        images = case.images[np.arange(2 * program.batch) % len(case.images)]
        regions = pack_input(program.arch, program.input, images).reshape(2, -1)
        counts = np.array([task.count for task in program.tasks], np.int64)
        numbers = np.arange(len(images))[:, None] % counts
        tasks = registers(numbers, program.batch)
        dram = DramModel(
            latency=int(rng.choice(LATENCIES)), outstanding=int(rng.integers(1, 9)),
            stall=float(rng.choice(STALLS)), seed=int(rng.integers(1 << 30)),
        )
        simulated = SimulatedCore(self._library, self._arch, dram)
        try:
            checker = Checker(program, regions, tasks=tasks)
            result = run_jobs(simulated, program, regions, tasks=tasks, inspect=checker.feed)
            checker.close(result.outputs)
        except BackendError as error:
            raise BackendError(f"on the core, {dram}: {error}") from error
        finally:
            simulated.close()


@functools.cache
def _simulation(arch: ArchConfig) -> Simulation:
    return Simulation(arch)


def on_a_core(seed: int, number: int, weights: Weights = EIGHT) -> None:
    """Compare a case on golden and on one of the cores in turn; what goes wrong is raised."""
    _simulation(BUILT[number % len(BUILT)]).simulate(seed, number, weights)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz graphs", description=__doc__)
    parser.add_argument("--count", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--rtl", type=int, default=0, metavar="N",
                        help="instead: N networks on simulated cores")
    parser.add_argument("--weights", type=int, choices=(WIDE, NARROW), default=WIDE)
    parser.add_argument("--case", type=int, help="run one, with its traceback")
    options = parser.parse_args(arguments)
    case = functools.partial(on_a_core if options.rtl else compiled,
                             weights=Weights(options.weights))
    logging.disable()
    warnings.simplefilter("ignore")
    if options.case is not None:
        case(options.seed, options.case)
        print("ok")
        return 0
    counts: collections.Counter[str] = collections.Counter()
    begun = time.monotonic()
    for number in range(options.start, options.start + (options.rtl or options.count)):
        result = _verdict(case, options.seed, number)
        counts[result if result.startswith("refused") else result.split()[0]] += 1
        if not result.startswith(("ok", "refused")):
            print(f"case {number}: {result}", flush=True)
        if number % 100 == 99:
            print(f"{number + 1} cases, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    for name, count in counts.most_common():
        print(f"{count:6d} {name}")
    return int(any(not name.startswith(("ok", "refused")) for name in counts))
