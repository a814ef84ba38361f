"""The instruction set: fields, formats and their packing.

An instruction is 64 bytes, little endian, fields packed from bit 0 upwards in the order of the
tables below; its last four bytes are a checksum of the others (:func:`checksum`), so that no
damaged instruction is executed.  Instructions issue in order; what they wait for is said by
their distance fields.

Distances count instructions *back* from the one that carries them: 1 is the most recent earlier
MATMUL (or LOAD / LOAD_INDEX, for the ``load`` distances), 0 means "no wait".  The engines finish
in order, so a distance of ``MAX_DISTANCE`` also covers everything older.  They count the
instructions of the *program*: a MATMUL that is skipped because its expert has no rows counts too,
and waiting for it is waiting for what came before it.

The exact meaning of each field is defined by the golden machine (``vitrify.golden.machine``),
which executes these instructions.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from . import formats
from .errors import ProgramError

INSTRUCTION_BYTES = 64
MAX_DISTANCE = 15


class Opcode(enum.IntEnum):
    """First field of every instruction.  Zero is illegal, so that blank memory stops the core."""

    #: All tiles of one matrix product, with its operand transform and epilogue.
    MATMUL = 1
    #: DRAM to token memory.
    LOAD = 2
    #: Token memory to DRAM.
    STORE = 3
    #: DRAM to row-index memory.
    LOAD_INDEX = 4
    #: End of the program: wait for everything, count the job as done.
    END = 5
    #: Gate logits to expert queues: softmax, top-k, lists of rows.
    ROUTE = 6


class Transform(enum.IntEnum):
    """What happens to a row between the token memory and the matrix unit."""

    #: int8, as stored.
    NONE = 0
    #: int16 residual: (x - mean) * rstd from the row statistics, times the channel gain, to int8.
    NORM = 1
    #: int8 logits: 2**(s - max), unsigned 8 bits; the row sum is gathered in the first tile.
    EXP2 = 2
    #: As NORM with mean 0 and the instruction's own shift and mantissa.
    SCALE = 3


class Stationary(enum.IntEnum):
    """Where the stationary tile comes from."""

    #: The weight stream in DRAM: tiles with their bias and multipliers.
    WEIGHTS = 0
    #: Token memory; output column = token row, depth = channel (K of attention).
    ROWS = 1
    #: Token memory; output column = channel, depth = token row (V of attention).
    COLUMNS = 2
    #: Token memory, where a LOAD has put them in the order of the weight stream, even columns in
    #: the low plane and odd ones in the high plane; the stream has bias and multipliers only.
    STORED = 3


#: Sources whose columns have bias and multipliers of their own, in the stream.
WITH_PARAMETERS = (Stationary.WEIGHTS, Stationary.STORED)


class Output(enum.IntEnum):
    """What the epilogue writes."""

    #: Saturated to -127 … 127, then through the activation table if asked.
    INT8 = 0
    #: Saturated int16.
    INT16 = 1
    #: Saturated int16, added with saturation to what is stored.
    ADD16 = 2


class Stats(enum.IntEnum):
    """Row statistic that the epilogue gathers."""

    NONE = 0
    #: Σx and Σx² of the written int16 row, finished to mean and reciprocal deviation.
    NORM = 1
    #: Maximum of the integer part of the written logits.
    MAX = 2


class Region(enum.IntEnum):
    """Base register that a DRAM offset is added to."""

    PROGRAM = 0
    INPUT = 1
    OUTPUT = 2


@dataclass(frozen=True)
class Field:
    """One unsigned field.

    ``low`` and ``high`` are the legal values (``high`` defaults to what the bits hold).
    """

    name: str
    bits: int
    doc: str
    low: int = 0
    high: int | None = None
    kind: type[enum.IntEnum] | None = None

    @property
    def max(self) -> int:
        """Largest legal value."""
        return (1 << self.bits) - 1 if self.high is None else self.high


@dataclass(frozen=True)
class Format:
    """The fields of one opcode, behind the opcode itself."""

    opcode: Opcode
    doc: str
    fields: tuple[Field, ...]

    @functools.cached_property
    def layout(self) -> dict[str, tuple[int, int]]:
        """``{field: (first bit, bits)}``, opcode and check included."""
        result, at = {"opcode": (0, OPCODE_BITS)}, OPCODE_BITS
        for field in self.fields:
            result[field.name] = (at, field.bits)
            at += field.bits
        return result | {"check": (CHECK_AT, CHECK_BITS)}

    def field(self, name: str) -> Field:
        """The field called ``name``."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ProgramError(f"{self.opcode.name} has no field {name!r}")


OPCODE_BITS = 4
#: The last bits of every instruction.
CHECK_BITS = 32
CHECK_AT = 8 * INSTRUCTION_BYTES - CHECK_BITS
#: "VTFY": blank memory has a wrong check field.
_CHECK_OF_ZEROS = 0x59465456

_ADDR = 20
_STRIDE = 12
_ROWS = 13
_DIST = 4
_LIST = 14

#: Tasks that a job has (bytes of the register TASK), and bits of one.
TASKS = 4
TASK_BITS = 8
_TASK = (
    Field("task_source", 2, "which of the job's tasks (byte of TASK)"),
    Field("task_stride", 24, "words of K bytes added to the DRAM offset for each task number"),
)

_MATMUL = (
    # row fetch
    Field("src_addr", _ADDR, "word address of the streamed tensor (pair word when int16)"),
    Field("src_stride", _STRIDE, "words from a row to the next"),
    Field("rows", _ROWS, "rows streamed past every tile", 1, 4096),
    Field("k_tiles", 11, "tiles along the inner dimension", 1, 1024),
    Field("k_last", 8, "valid elements of the last k tile; the others read as zero", 1, 128),
    Field("c_tiles", 12, "tiles along the output columns", 1, 2048),
    Field("c_last", 9, "valid columns of the last c tile", 1, 256),
    Field("transform", 2, "operand transform", kind=Transform),
    Field("src_list", 1, "rows are picked by the row-index list at src_list_base"),
    Field("src_list_base", _LIST, "first entry of the list"),
    Field("stat_src", _LIST, "row statistics of row id 0 (NORM, EXP2)"),
    Field("norm_shift", 5, "SCALE: h of the fixed normalisation", 0, 18),
    Field("norm_mantissa", 9, "SCALE: mantissa of the fixed normalisation"),
    Field("gain_slot", 1, "half of the gain memory (NORM, SCALE)"),
    # stationary tile
    Field("stationary", 2, "source of the stationary tile", 0, 3, Stationary),
    Field("st_addr", _ADDR, "word address of the stationary tensor (pair word of STORED)"),
    Field("st_stride", _STRIDE, "ROWS, COLUMNS: words from a token row to the next"),
    Field("load_gain", 1, "the stream begins with the gains of this instruction"),
    Field("load_table", 1, "an activation table follows in the stream"),
    Field("stream_offset", 32, "byte offset of the weight stream in the program image"),
    Field("stream_words", 24, "length of the weight stream in words of K bytes"),
    # epilogue
    Field("output", 2, "format of the result", 0, 2, Output),
    Field("dst_addr", _ADDR, "word address of the result (pair word when int16)"),
    Field("dst_stride", _STRIDE, "words from a row to the next"),
    Field("dst_list", 1, "rows are placed by the row-index list at dst_list_base"),
    Field("dst_list_base", _LIST, "first entry of the list"),
    Field("pre_shift", 4, "right shift before the multiplier"),
    Field("post_shift", 2, "right shift behind it: index into POST_SHIFTS"),
    Field("multiplier", 16, "ROWS, COLUMNS: multiplier of every column"),
    Field("row_scale", 1, "multiply by 1/(row sum of the EXP2 operand) instead"),
    Field("activation", 1, "INT8: through the activation table"),
    Field("table_slot", 1, "half of the table memory"),
    Field("stats", 2, "row statistic to gather", 0, 2, Stats),
    Field("stat_dst", _LIST, "row statistics entry of row id 0"),
    Field("inv_dim", 16, "Stats.NORM: mantissa of 1/D"),
    Field("inv_shift", 5, "Stats.NORM: its shift"),
    Field("epsilon", 16, "Stats.NORM: added to the variance, units of step² / 2**(2*MEAN_FRAC)"),
    # waiting
    Field("dep_distance", _DIST, "MATMUL whose result the streamed rows need"),
    Field("dep_k", 11, "first k tile that needs the rows of its last c tile"),
    Field("st_distance", _DIST, "MATMUL whose result the stationary tiles need"),
    Field("load_distance", _DIST, "load that the row fetch needs, and STORED tiles"),
    Field("load_stream", 1, "follow that load word by word instead of waiting for its end"),
    Field("epi_load_distance", _DIST, "load that the epilogue needs"),
    Field("epi_load_stream", 1, "follow that load c tile by c tile; it has the MATMUL's rows"),
    Field("dep_end", 1, "wait for the end of dep_distance's MATMUL: its rows are in another order"),
    # experts and tasks
    Field("expert_rows", 1, "rows and lists are the expert's queue; skipped if that has none"),
    Field("expert", 6, "expert_rows: whose queue"),
    Field("expert_first", _ROWS, "expert_rows: its first entry; at most `rows` from there on",
          0, 4095),
    Field("gate", 1, "scale by the weights of dst_list's entries; ADD16 adds to add_addr first"),
    Field("add_addr", _ADDR, "gate, ADD16: pair word address of what a row's first expert adds to"),
    *_TASK,
)

_MOVE = (
    Field("region", 2, "base register", 0, 2, Region),
    Field("offset", 32, "byte offset from it, a multiple of K"),
    Field("addr", _ADDR, "word address in the token memory (pair word when wide)"),
    Field("stride", _STRIDE, "words from a row to the next"),
    Field("rows", _ROWS, "rows", 1, 4096),
    Field("words", _STRIDE, "words of a row", 1),
    Field("wide", 1, "int16: low bytes in one DRAM word, high bytes in the next"),
    Field("wait_distance", _DIST, "MATMUL that must have finished"),
    *_TASK,
)

FORMATS: dict[Opcode, Format] = {
    f.opcode: f
    for f in (
        Format(Opcode.MATMUL, "one matrix product", _MATMUL),
        Format(Opcode.LOAD, "DRAM to token memory, word by word: all rows of word 0 first", _MOVE),
        Format(Opcode.STORE, "token memory to DRAM, in the order of LOAD", _MOVE),
        Format(Opcode.LOAD_INDEX, "DRAM to row-index memory", (
            Field("region", 2, "base register", 0, 2, Region),
            Field("offset", 32, "byte offset from it, a multiple of K"),
            Field("base", _LIST, "first entry written"),
            Field("count", _LIST, "entries (16 bits each, little endian)", 1),
            Field("wait_distance", _DIST, "MATMUL that must have finished"),
            *_TASK,
        )),
        Format(Opcode.END, "end of the program", ()),
        Format(Opcode.ROUTE, "gate logits to expert queues", (
            Field("src_addr", _ADDR, "pair word address of the logits, int16, GATE_LOGIT_FRAC"),
            Field("src_stride", _STRIDE, "words from a row to the next"),
            Field("rows", _ROWS, "rows", 1, 4096),
            Field("experts", 7, "logits of a row", 1, formats.MAX_EXPERTS),
            Field("choices", 3, "experts that every row goes to", 1, formats.MAX_CHOICES),
            Field("normalise", 1, "weights sum to 1 over the chosen experts, not over all"),
            Field("base", _LIST, "first entry of the queues; they take rows * choices"),
            Field("wait_distance", _DIST, "MATMUL that must have finished", 1),
        )),
    )
}


@dataclass(frozen=True)
class Instruction:
    """An opcode with a value for every field (unnamed fields are zero, or their least value)."""

    opcode: Opcode
    values: Mapping[str, int]

    def __getattr__(self, name: str) -> int:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"{self.opcode.name} has no field {name!r}") from None

    def __str__(self) -> str:
        shown = []
        for field in FORMATS[self.opcode].fields:
            value = self.values[field.name]
            if value != field.low:
                shown.append(f"{field.name}={field.kind(value).name if field.kind else value}")
        return " ".join([self.opcode.name, *shown])


def make(opcode: Opcode, **values: int) -> Instruction:
    """An instruction from keyword values, checked against the format.

    Raises
    ------
    ProgramError
        For an unknown field or a value out of range; the message names both.
    """
    fmt = FORMATS[opcode]
    complete = {f.name: int(values.pop(f.name, f.low)) for f in fmt.fields}
    if values:
        raise ProgramError(f"{opcode.name} has no field {next(iter(values))!r}")
    for f in fmt.fields:
        if not f.low <= complete[f.name] <= f.max:
            raise ProgramError(
                f"{opcode.name}.{f.name} must be {f.low} to {f.max}, not {complete[f.name]}"
            )
    return Instruction(opcode, complete)


def checksum(data: bytes) -> int:
    """The check field for the 60 bytes before it.

    Their 15 words of 32 bits, each XORed with itself rotated left by its number (from 1), XORed
    together and with a constant.  Every bit changes another pair of bits, so that up to two wrong
    ones are always noticed.
    """
    result = _CHECK_OF_ZEROS
    for number in range(1, len(data) // 4 + 1):
        word = int.from_bytes(data[4 * number - 4 : 4 * number], "little")
        result ^= word ^ (word << number | word >> 32 - number) & 0xFFFF_FFFF
    return result


def pack(instruction: Instruction) -> bytes:
    """The 64 bytes of an instruction."""
    word = int(instruction.opcode)
    for name, (at, _bits) in FORMATS[instruction.opcode].layout.items():
        if name in instruction.values:
            word |= instruction.values[name] << at
    body = word.to_bytes(CHECK_AT // 8, "little")
    return body + checksum(body).to_bytes(CHECK_BITS // 8, "little")


def unpack(data: bytes) -> Instruction:
    """The instruction in 64 bytes.

    Raises
    ------
    ProgramError
        For an unknown opcode, a wrong checksum, a field out of range, or bits set outside the
        fields.
    """
    word = int.from_bytes(data, "little")
    code = word & ((1 << OPCODE_BITS) - 1)
    if len(data) != INSTRUCTION_BYTES or code not in Opcode.__members__.values():
        raise ProgramError(f"not an instruction: opcode {code}, {len(data)} bytes")
    opcode = Opcode(code)
    if checksum(data[: CHECK_AT // 8]) != word >> CHECK_AT:
        raise ProgramError(f"an instruction {opcode.name} is damaged: its checksum is wrong")
    layout = FORMATS[opcode].layout
    instruction = make(opcode, **{
        field.name: word >> layout[field.name][0] & ((1 << field.bits) - 1)
        for field in FORMATS[opcode].fields
    })
    if pack(instruction) != data:
        raise ProgramError(f"{opcode.name} has bits set outside its fields")
    return instruction
