"""Backend ``golden``: the NumPy machine that defines the instruction set.

Options: ``progress`` (called as ``progress(done, total)`` in layers).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.isa import Instruction
from vitrify.golden.machine import Machine
from vitrify.program import Application, Program
from vitrify.runtime.backend import (
    Backend,
    ProgramBackend,
    Progress,
    UInt8,
    check_options,
    need_program,
    no_progress,
)
from vitrify.runtime.statistics import Statistics, of_program

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


class GoldenBackend(ProgramBackend):
    """Executes the instruction stream in NumPy; knows no cycles.

    Every run takes a machine of its own, so that threads may share a session.
    """

    name = "golden"

    def __init__(self, program: Program, *, progress: Progress | None = None) -> None:
        super().__init__(program)
        self._decoded = Machine(program.arch)
        self._idle = [self._decoded.twin(program.image)]
        self._progress = progress or no_progress

    def execute(
        self, regions: UInt8, tasks: Sequence[int], images: int
    ) -> tuple[UInt8, Callable[[], Statistics]]:
        """Several jobs at a time, where BLAS may have several threads (and threadpoolctl is there).

        A core's products are small: threads that take a job each are used better than by BLAS.
        """
        blas = _blas() if len(regions) > 1 else None
        allowed = [] if blas is None else [library["num_threads"] for library in blas.info()]
        threads = min(len(regions), max(allowed, default=1))
        job = self._jobs(len(regions))
        if blas is None or threads == 1:
            done = [*map(job, regions, tasks)]
        else:
            pool = ThreadPoolExecutor(threads)
            try:
                with blas.limit(limits=1):
                    done = [*pool.map(job, regions, tasks)]
            finally:
                pool.shutdown(cancel_futures=True)
        results, skipped = zip(*done, strict=True)
        return np.stack(results), lambda: of_program(
            self.program, self.name, images, skipped=np.sum(skipped, axis=0).tolist())

    def _jobs(self, count: int) -> Callable[[UInt8, int], tuple[UInt8, list[int]]]:
        """What runs one of ``count`` jobs: its output, and 1 for every layer that was left out."""
        program, lock, done = self.program, Lock(), 0

        def job(region: UInt8, task: int) -> tuple[UInt8, list[int]]:
            skipped: list[int] = []

            def observe(_number: int, _op: Instruction, values: npt.NDArray[Any]) -> None:
                nonlocal done
                skipped.append(not len(values))
                with lock:
                    done += 1
                    self._progress(done, count * len(program.layers))

            # Popping and appending are atomic.
            try:
                machine = self._idle.pop()
            except IndexError:
                machine = self._decoded.twin(program.image)
            output = machine.run(
                program.image, program.instruction_count, region, program.output_bytes, observe,
                task,
            )
            self._idle.append(machine)
            return output, skipped

        return job


@functools.cache
def _blas() -> ThreadpoolController | None:
    """The threads of NumPy's BLAS, where there is something that counts them."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def create(
    model: Program | Application | Path, _preprocess: str | None, options: Mapping[str, Any]
) -> Backend:
    """Backend for a program."""
    check_options("golden", options, ("progress",))
    return GoldenBackend(need_program("golden", model), **options)
