"""Backend ``golden``: the NumPy machine that defines the instruction set.

Options: ``progress`` (called as ``progress(done, total)`` in layers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
        """One job after the other."""
        program = self.program
        layers = len(program.layers)
        # Popping and appending are atomic.
        try:
            machine = self._idle.pop()
        except IndexError:
            machine = self._decoded.twin(program.image)
        done, skipped = 0, [0] * layers

        def observe(_number: int, _op: Instruction, values: npt.NDArray[Any]) -> None:
            nonlocal done
            skipped[done % layers] += not len(values)
            done += 1
            self._progress(done, len(regions) * layers)

        results = np.stack(
            [
                machine.run(
                    program.image, program.instruction_count, region, program.output_bytes,
                    observe, task,
                )
                for region, task in zip(regions, tasks, strict=True)
            ]
        )
        self._idle.append(machine)
        return results, lambda: of_program(program, self.name, images, skipped=skipped)


def create(
    model: Program | Application | Path, _preprocess: str | None, options: Mapping[str, Any]
) -> Backend:
    """Backend for a program."""
    check_options("golden", options, ("progress",))
    return GoldenBackend(need_program("golden", model), **options)
