"""Comparison of what a core writes with what the golden machine writes: tensors, then outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import access
from vitrify.arch.errors import BackendError
from vitrify.arch.isa import Instruction
from vitrify.arch.modes import NARROW_OUTPUTS
from vitrify.golden.machine import Machine
from vitrify.program import Program, unpack_output

UInt8 = npt.NDArray[np.uint8]


class MismatchError(BackendError):
    """RTL and golden differ; the message names tensor, place and cycle."""


@dataclass(frozen=True)
class Expected:
    """What one MATMUL of the golden machine wrote."""

    instruction: Instruction
    #: int8 or int16 ``[rows, columns]``.
    values: npt.NDArray[Any]
    #: Token-memory (pair) address of every word, ``[rows, words]``.
    addresses: npt.NDArray[np.int64]


class Checker:
    """Takes the records of a simulation as they come and raises at the first difference.

    Parameters
    ----------
    program : Program
    regions : input regions ``[N, input_bytes]``; golden runs an image when its records arrive
    first_matmul : number of the batch's first MATMUL in the records
    tasks : the register TASK of each image's job (default 0)
    """

    def __init__(
        self, program: Program, regions: UInt8, first_matmul: int = 0,
        tasks: Sequence[int] | None = None,
    ) -> None:
        self._program, self._regions, self._first = program, regions, first_matmul
        self._tasks = [0] * len(regions) if tasks is None else tasks
        self._machine = Machine(program.arch)
        self._image = -1
        self._expected: list[Expected] = []
        self._pending: list[npt.NDArray[Any]] = []
        #: Golden's output regions, image by image.
        self._outputs: list[UInt8] = []
        #: MATMULs found equal, those included that both left out.
        self.compared = 0

    def feed(self, records: npt.NDArray[Any]) -> None:
        """Take the records of a slice; compare every MATMUL that is complete."""
        if not len(records):
            return
        edges = np.flatnonzero(np.diff(records["matmul"])) + 1
        for part in np.split(records, edges):
            if self._pending and self._pending[0]["matmul"][0] != part["matmul"][0]:
                self._finish()
            self._pending.append(part)

    def close(self, outputs: UInt8) -> None:
        """Compare the last MATMUL, see that none is missing, and compare the output regions.

        Every tensor may be right and an output wrong: if a STORE reads too early, or writes to
        another place.

        Parameters
        ----------
        outputs : what the core's memory holds, ``[N, output_bytes]``
        """
        if self._pending:
            self._finish()
        total = len(self._regions) * len(self._program.layers)
        self._skip(total)
        if self.compared != total:
            raise MismatchError(f"the core wrote {self.compared} tensors where golden has {total}")
        for image, (found, exact) in enumerate(zip(outputs, self._outputs, strict=True)):
            self._compare_outputs(image, found, exact)

    def _compare_outputs(self, job: int, found: UInt8, exact: UInt8) -> None:
        """Channels in use; what lies behind the last one is nobody's."""
        program = self._program
        pair = np.stack([found, exact]).reshape(2 * program.batch, -1)
        for spec in program.outputs:
            values = unpack_output(program.arch, spec, pair).reshape(2, program.batch, -1)
            wrong = np.argwhere(values[0] != values[1])
            if len(wrong):
                image, at = wrong[0]
                raise MismatchError(
                    f"image {job * program.batch + image}: all tensors are golden's, but output "
                    f"{spec.name!r} in memory is not: value {at} is {values[0, image, at]:g}, "
                    f"golden has {values[1, image, at]:g}; {len(wrong)} of {values[0].size} values "
                    f"differ, so that a STORE came too early or went astray"
                )

    def _finish(self) -> None:
        records = np.concatenate(self._pending)
        self._pending = []
        number = int(records["matmul"][0]) - self._first
        self._skip(number)
        if number != self.compared:
            name = self._program.layers[self.compared % len(self._program.layers)].name
            raise MismatchError(f"the core wrote nothing for MATMUL {self.compared} ({name})")
        image, layer = divmod(number, len(self._program.layers))
        if image >= len(self._regions):
            raise MismatchError(f"the core wrote more than the {self.compared} tensors of golden")
        difference = compare(self._program, self._expect(image)[layer], records)
        if difference is not None:
            info = self._program.layers[layer]
            raise MismatchError(
                f"image {image}, layer {info.name!r}, instruction {info.instruction}: tensor "
                f"{info.tensor.name!r} differs from golden: {difference}"
            )
        self.compared += 1

    def _skip(self, number: int) -> None:
        """Count MATMULs before ``number`` that have no rows in golden either."""
        layers = len(self._program.layers)
        while self.compared < min(number, len(self._regions) * layers):
            image, layer = divmod(self.compared, layers)
            if len(self._expect(image)[layer].values):
                break
            self.compared += 1

    def _expect(self, image: int) -> list[Expected]:
        if image != self._image:
            self._expected, self._image = self._golden(image), image
        return self._expected

    def _golden(self, image: int) -> list[Expected]:
        program, machine = self._program, self._machine
        seen: list[Expected] = []

        def observe(_index: int, op: Instruction, values: npt.NDArray[Any]) -> None:
            address = np.concatenate([
                access.result(program.arch, one).words(index=machine.index)
                for one in access.repetitions(op)
            ])
            seen.append(Expected(op, values.copy(), address))

        output = machine.run(
            program.image,
            program.instruction_count,
            self._regions[image],
            program.output_bytes,
            observe,
            self._tasks[image],
        )
        self._outputs.append(output)
        return seen


def compare(program: Program, expected: Expected, records: npt.NDArray[Any]) -> str | None:
    """The first difference between one MATMUL's records and golden, in words; or ``None``."""
    arch, op = program.arch, expected.instruction
    rows, columns = expected.values.shape
    words = expected.addresses.shape[1]
    wide = op.output not in NARROW_OUTPUTS
    # Where a record goes: token-memory address -> place in the tensor.
    place = np.full(arch.token_words, -1, np.int64)
    place[expected.addresses.reshape(-1)] = np.arange(rows * words)
    at = place[np.minimum(records["address"], arch.token_words - 1)]
    stray = (at < 0) | (records["wide"] != wide)
    if stray.any():
        first = records[np.flatnonzero(stray)[0]]
        kind = "int16" if first["wide"] else "int8"
        return (
            f"cycle {first['cycle']} writes {kind} word {first['address']}, which is no part of it"
        )
    lanes = np.unpackbits(records["mask"], axis=1, bitorder="little")[:, : arch.depth // arch.lanes]
    enabled = np.repeat(lanes, arch.lanes, axis=1).astype(bool)
    got = np.zeros((rows * words, arch.depth), np.int64)
    cycle = np.full((rows * words, arch.depth), -1, np.int64)
    values = records["low"].astype(np.int64)
    if wide:
        values = (values | records["high"].astype(np.int64) << 8).astype(np.uint16).view(np.int16)
    else:
        values = values.astype(np.uint8).view(np.int8)
    record, lane = np.nonzero(enabled)
    got[at[record], lane] = values[record, lane]
    cycle[at[record], lane] = records["cycle"][record]
    got = got.reshape(rows, words * arch.depth)[:, :columns]
    cycle = cycle.reshape(rows, words * arch.depth)[:, :columns]
    wrong = (got != expected.values) & (cycle >= 0)
    if wrong.any():
        r, c = np.unravel_index(np.where(wrong, cycle, np.iinfo(np.int64).max).argmin(), got.shape)
        return (
            f"row {r}, channel {c} (c tile {c // arch.width}) is {got[r, c]}, golden has "
            f"{expected.values[r, c]}, written in cycle {cycle[r, c]}; {wrong.sum()} of "
            f"{wrong.size} values differ"
        )
    missing = np.argwhere(cycle < 0)
    if len(missing):
        r, c = missing[0]
        return (
            f"row {r}, channel {c} (c tile {c // arch.width}) was never written (the last write "
            f"was in cycle {records['cycle'][-1]}); {len(missing)} values are missing"
        )
    return None
