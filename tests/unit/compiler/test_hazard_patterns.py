"""Access patterns, sums and repetitions wait for what they need, and are found if they do not."""

from __future__ import annotations

import dataclasses

import pytest

from vitrify.arch import isa
from vitrify.arch.isa import Opcode, RowScale
from vitrify.arch.presets import preset
from vitrify.compiler.hazards import hazards
from vitrify.selftest.patterns import access_patterns

NANO = preset("nano")
JOB = access_patterns(NANO, 1)


def program() -> list[isa.Instruction]:
    found, pattern = [], None
    for i in range(JOB.instructions):
        data = JOB.image[i * isa.INSTRUCTION_BYTES : (i + 1) * isa.INSTRUCTION_BYTES]
        op, pattern = isa.attach(isa.unpack(data.tobytes()), pattern)
        found.append(op)
    return found


def matmul(code: list[isa.Instruction], **fields: int) -> int:
    """Number of the last MATMUL with these values."""
    return max(i for i, op in enumerate(code) if op.opcode is Opcode.MATMUL and all(
        op.values[name] == value for name, value in fields.items()))


def without(code: list[isa.Instruction], number: int, **fields: int) -> list[isa.Instruction]:
    op = code[number]
    changed = dataclasses.replace(op, values={**op.values, **fields})
    return [*code[:number], changed, *code[number + 1 :]]


def test_programs_of_every_kind_are_sound() -> None:
    assert hazards(NANO, program(), JOB.image) == []


@pytest.mark.parametrize("fields", [
    {"repeats": 4, "transform": isa.Transform.EXP2},
    {"row_scale": RowScale.STATISTIC},
])
def test_a_wait_is_missed(fields: dict[str, int]) -> None:
    code = program()
    number = matmul(code, **fields)
    assert code[number].dep_distance
    found = hazards(NANO, without(code, number, dep_distance=0), JOB.image)
    assert number in {hazard.later for hazard in found}


def test_repetitions_do_not_read_what_they_write() -> None:
    code = program()
    number = matmul(code, repeats=4, transform=isa.Transform.EXP2)
    found = hazards(NANO, without(code, number, dst_addr=code[number].src_addr), JOB.image)
    assert any("operands" in str(hazard) for hazard in found if hazard.later == number)


def test_every_repetition_counts() -> None:
    """The last window of the values comes too early for a MATMUL that reads only that."""
    code = program()
    number = matmul(code, repeats=4, transform=isa.Transform.EXP2)
    op = code[number]
    reader = isa.attach(isa.make(
        Opcode.MATMUL, src_addr=op.dst_addr + 4 * op.dst_step, src_stride=op.dst_stride, rows=6,
        k_last=NANO.depth, dst_addr=0, multiplier=1, stationary=isa.Stationary.ROWS, st_addr=0,
    ), None)[0]
    code = [*code[: number + 1], reader, code[-1]]
    found = hazards(NANO, code, JOB.image)
    assert number in {hazard.earlier for hazard in found if hazard.later == number + 1}
