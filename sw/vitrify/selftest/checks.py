"""The checks in their order: what a later one needs, an earlier one has tried."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError, CapacityError, ProgramError
from vitrify.driver import CoreDriver, LinkError, Transport

from .patterns import access_patterns
from .programs import Job, every_mechanism
from .routed_heads import routed_heads
from .speed import MEASURES, predicted
from .walks import walk_memory, walk_registers

UInt8 = npt.NDArray[np.uint8]
Counters = Mapping[str, int]
#: Judges the output region of a job, and the counters behind it.
Judge = Callable[[UInt8, Counters], "Check"]

#: Programs by what they try.  An architecture may lack what one needs: that one is left out.
PROGRAMS: dict[str, Callable[[ArchConfig, int], Job]] = {
    "products, norms, attention, lists": every_mechanism,
    "convolutions, products of rows, sums": access_patterns,
    "routing": routed_heads,
}
#: A board's memory may differ so much from the one that the estimate assumes, as a share of it.
_TOLERANCE = 0.15


class Status(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    #: As it should be, but slower or faster than the estimate.
    DIFFERS = "differs"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One check: what was tried, how it ended, and the figures or what is wrong."""

    name: str
    status: Status
    detail: str = ""
    #: Cycles of the job, and those that the estimator predicts.
    cycles: int | None = None
    predicted: int | None = None


def selftest(
    transport: Transport, arch: ArchConfig, *, patience: float, memory: int, seed: int = 1,
) -> Iterator[Check]:
    """Try a core: registers, memory, programs of every instruction against golden, speed.

    Parameters
    ----------
    transport : the way to it; stays open
    arch : what it was built for
    patience : seconds without progress after which a job is given up
    memory : bytes of its memory that are written and compared
    seed : of the data

    Yields
    ------
    The checks, each when it has ended.

    Raises
    ------
    BackendError
        If there is no such core, or another process keeps it.
    LinkError
        If the transport fails: no further check would say anything about the core.
    """
    driver = CoreDriver(transport, arch, patience=patience)
    with driver.exclusive():
        yield _walk("registers", lambda: walk_registers(driver))
        yield _walk("memory", lambda: walk_memory(transport, memory, seed))
        for name, make in PROGRAMS.items():
            yield _program(driver, arch, name, make, seed)
        for name, (make, counter) in MEASURES.items():
            yield _speed(driver, arch, name, make(arch), counter)


def _walk(name: str, walk: Callable[[], str]) -> Check:
    wrong = walk()
    return Check(name, Status.FAILED if wrong else Status.PASSED, wrong)


def _judged(name: str, driver: CoreDriver, job: Job, judge: Judge) -> Check:
    """Run a job, and judge its output region and the counters behind it."""
    try:
        driver.load(job.image, job.instructions, len(job.input), len(job.output))
        (output,) = driver.run(job.input[None], len(job.output), [job.task])
        counters = driver.counters()
    except LinkError:
        raise
    except BackendError as error:
        return Check(name, Status.FAILED, str(error))
    return judge(output, counters)


def _program(
    driver: CoreDriver, arch: ArchConfig, name: str, make: Callable[[ArchConfig, int], Job],
    seed: int,
) -> Check:
    try:
        job = make(arch, seed)
    except (CapacityError, ProgramError) as error:
        return Check(name, Status.SKIPPED, str(error))

    def judge(output: UInt8, counters: Counters) -> Check:
        wrong = np.flatnonzero((output != job.output) & job.output_known)
        known, cycles = int(job.output_known.sum()), counters["CYCLES"]
        if not wrong.size:
            what = f"{job.instructions} instructions, {known} bytes equal golden"
            return Check(name, Status.PASSED, what, cycles)
        at = int(wrong[0])
        return Check(
            name, Status.FAILED,
            f"{wrong.size} of {known} bytes of the output differ from golden; the first, byte "
            f"{at}, is {output[at]}, not {job.output[at]}", cycles,
        )

    return _judged(name, driver, job, judge)


def _speed(driver: CoreDriver, arch: ArchConfig, name: str, job: Job, counter: str) -> Check:
    def judge(_: UInt8, counters: Counters) -> Check:
        cycles, expected = counters["CYCLES"], predicted(arch, job)
        detail = f"{cycles} cycles, {expected} by the estimate"
        if counter:
            rate = counters[counter] * arch.bus_bytes / cycles
            detail = (
                f"{rate:.2f} bytes a cycle of {arch.bus_bytes} "
                f"({rate * arch.clock_mhz / 1000:.2f} GB/s at {arch.clock_mhz:g} MHz): {detail}"
            )
        near = abs(cycles - expected) <= _TOLERANCE * expected
        return Check(name, Status.PASSED if near else Status.DIFFERS, detail, cycles, expected)

    return _judged(name, driver, job, judge)
