"""Instruction packing: every legal value survives, every illegal one is refused by name."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrify.arch import isa
from vitrify.arch.errors import ProgramError
from vitrify.arch.isa import FORMATS, INSTRUCTION_BYTES, Opcode, make, pack, unpack


@st.composite
def instructions(draw: st.DrawFn) -> isa.Instruction:
    opcode = draw(st.sampled_from(list(Opcode)))
    return make(opcode, **{
        f.name: draw(st.integers(f.low, f.max)) for f in FORMATS[opcode].fields
    })


@given(instructions())
def test_pack_round_trip(instruction: isa.Instruction) -> None:
    data = pack(instruction)
    assert len(data) == INSTRUCTION_BYTES
    assert unpack(data) == instruction


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.opcode.name)
def test_fields_do_not_overlap_and_fit(fmt: isa.Format) -> None:
    taken = [bit for at, bits in fmt.layout.values() for bit in range(at, at + bits)]
    assert len(taken) == len(set(taken))
    assert max(taken) < 8 * INSTRUCTION_BYTES


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.opcode.name)
def test_out_of_range_names_field_and_value(fmt: isa.Format) -> None:
    for field in fmt.fields:
        with pytest.raises(ProgramError, match=rf"{field.name} must be .* not {field.max + 1}"):
            make(fmt.opcode, **{field.name: field.max + 1})


def test_unknown_field() -> None:
    with pytest.raises(ProgramError, match="END has no field 'rows'"):
        make(Opcode.END, rows=1)


@pytest.mark.parametrize("data", [bytes(INSTRUCTION_BYTES), b"\x0f" + bytes(63), b"\x05"])
def test_blank_unknown_and_short_are_refused(data: bytes) -> None:
    with pytest.raises(ProgramError, match="not an instruction"):
        unpack(data)


def test_stray_bits_are_refused() -> None:
    body = bytes([Opcode.END]) + bytes(58) + b"\x01"
    with pytest.raises(ProgramError, match="END has bits set"):
        unpack(body + isa.checksum(body).to_bytes(4, "little"))


@given(instructions(), st.sets(st.integers(0, 8 * INSTRUCTION_BYTES - 1), min_size=1, max_size=2))
def test_up_to_two_wrong_bits_are_noticed(instruction: isa.Instruction, bits: set[int]) -> None:
    word = int.from_bytes(pack(instruction), "little")
    for bit in bits:
        word ^= 1 << bit
    with pytest.raises(ProgramError, match=r"damaged|not an instruction"):
        unpack(word.to_bytes(INSTRUCTION_BYTES, "little"))


def test_copies():
    op = make(Opcode.STORE, rows=3, words=2)
    for same in (copy.copy(op), copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert same == op
        assert same.rows == 3
    with pytest.raises(AttributeError, match="STORE has no field 'columns'"):
        _ = op.columns
