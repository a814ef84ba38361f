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
from .modes import WITH_PARAMETERS as WITH_PARAMETERS
from .modes import Combine, Opcode, Output, Region, RowScale, Stationary, Stats, Transform

INSTRUCTION_BYTES = 64
MAX_DISTANCE = 15
#: Commands that wait in front of an engine.
COMMAND_DEPTH = 4


@dataclass(frozen=True)
class Field:
    """One field, unsigned unless ``low`` is negative (two's complement).

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
        return (1 << self.bits - (self.low < 0)) - 1 if self.high is None else self.high

    @property
    def default(self) -> int:
        """The value of a field that is not named."""
        return max(self.low, 0)

    def encode(self, value: int) -> int:
        """The bits of a legal value."""
        return value & ((1 << self.bits) - 1)

    def decode(self, bits: int) -> int:
        """The value of bits."""
        return bits - (1 << self.bits) if self.low < 0 and bits >> (self.bits - 1) else bits


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
    Field("transform", 3, "operand transform", 0, 4, Transform),
    Field("src_list", 1, "rows are picked by the row-index list at src_list_base"),
    Field("src_list_base", _LIST, "first entry of the list"),
    Field("stat_src", _LIST, "row statistics of row id 0 (NORM, EXP2, row_scale STATISTIC)"),
    Field("norm_shift", 5, "SCALE, PRODUCT: h of the fixed normalisation", 0, 18),
    Field("norm_mantissa", 9, "SCALE, PRODUCT: its mantissa"),
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
    Field("output", 2, "format of the result", kind=Output),
    Field("dst_addr", _ADDR, "word address of the result (pair word when int16)"),
    Field("dst_stride", _STRIDE, "words from a row to the next"),
    Field("dst_list", 1, "rows are placed by the row-index list at dst_list_base"),
    Field("dst_list_base", _LIST, "first entry of the list"),
    Field("pre_shift", 4, "right shift before the multiplier"),
    Field("post_shift", 2, "right shift behind it: index into POST_SHIFTS"),
    Field("multiplier", 16, "ROWS, COLUMNS: multiplier of every column"),
    Field("row_scale", 2, "multiply by 1/(sum of the row) instead", 0, 2, RowScale),
    Field("activation", 1, "INT8, ADD8: through the activation table"),
    Field("table_slot", 1, "half of the table memory"),
    Field("stats", 3, "row statistic to gather", 0, 4, Stats),
    Field("stat_dst", _LIST, "row statistics entry of row id 0"),
    Field("inv_dim", 16, "NORM, RMS: mantissa of 1/D"),
    Field("inv_shift", 5, "NORM, RMS: its shift"),
    Field("epsilon", 16, "NORM, RMS: added to the variance, units of step² / 2**(2*MEAN_FRAC)"),
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
    Field("nibbles", 1, "tiles of the stream have 4 bits a weight; in thirds, STORED ones, too"),
)

_PIXEL = 14
_STEP = 11

_PATTERN = (
    # streamed rows
    Field("tapped", 1, "rows are output pixels of a map; k tiles are taps, then words of a pixel"),
    Field("taps_y", 4, "tapped: rows of taps", 1, 8),
    Field("taps_x", 4, "tapped: taps in a row", 1, 8),
    Field("tap_k", _STEP, "tapped: k tiles of a tap; k_tiles is taps_y * taps_x * tap_k", 1, 1024),
    Field("tap_stride", 4, "tapped: pixels from an output pixel's taps to the next one's", 1, 8),
    Field("map_height", 13, "tapped: rows of the map; its pixels are the tensor's rows", 1, 4096),
    Field("map_width", 13, "tapped: pixels of its rows", 1, 4096),
    Field("out_width", 13, "tapped: output pixels of a row", 1, 4096),
    Field("origin_y", _PIXEL, "tapped: map row of output pixel (0, 0)'s first tap", -4096, 4095),
    Field("origin_x", _PIXEL, "tapped: its map column; taps outside the map read zeros",
          -4096, 4095),
    Field("k_step", _STEP, "words from what a group of c tiles streams to what the next one does"),
    Field("c_group", 12, "k_step: c tiles of a group", 1, 2048),
    Field("gain_words", _STEP, "load_gain: words of gains in the stream (0: k_tiles)"),
    # results
    Field("combine", 1, "ADD16, ADD8: what becomes of result and old value", kind=Combine),
    Field("add_source", 1, "ADD16, ADD8: old values are rows from add_addr on, not the result's"),
    Field("add_stride", _STRIDE, "add_source: words from a row to the next"),
    # repetition
    Field("repeats", 8, "how often the MATMUL is done again, every time with the steps"),
    Field("src_step", _ADDR, "words (pair words) from its streamed tensor to the next one"),
    Field("st_step", _ADDR, "words from its stationary tensor to the next one"),
    Field("dst_step", _ADDR, "words (pair words) from its result to the next one"),
    Field("add_step", _ADDR, "add_source: words (pair words) from its old values to the next ones"),
    Field("stat_src_step", _LIST, "entries from its stat_src to the next one"),
    Field("stat_dst_step", _LIST, "entries from its stat_dst to the next one"),
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
            Field("base", _LIST, "first entry of rows * choices + experts * room of the queues"),
            Field("wait_distance", _DIST, "MATMUL that must have finished", 1),
            Field("room", 12, "entries left free behind each queue, for the rows that join"),
            Field("joins", 1, "rows are behind those of the ROUTE before, in its queues"),
        )),
        Format(Opcode.PATTERN, "access patterns of the next MATMUL", _PATTERN),
    )
}
#: What a MATMUL without a PATTERN has.
NO_PATTERN = {field.name: field.default for field in _PATTERN}


@dataclass(frozen=True)
class Instruction:
    """An opcode with a value for every field (unnamed fields are zero, or their least value).

    A MATMUL of a program (:func:`attach`) has the fields of its PATTERN as well.
    """

    opcode: Opcode
    values: Mapping[str, int]

    def __post_init__(self) -> None:
        # Attributes of its own are found many times faster than by __getattr__.
        self.__dict__.update(self.values)

    def __getattr__(self, name: str) -> int:
        if "opcode" not in self.__dict__:  # a copy that has nothing yet
            raise AttributeError(name)
        raise AttributeError(f"{self.opcode.name} has no field {name!r}")

    def __str__(self) -> str:
        shown = []
        for field in (*FORMATS[self.opcode].fields, *_PATTERN):
            value = self.values.get(field.name, field.default)
            if value != field.default:
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
    complete = {f.name: int(values.pop(f.name, f.default)) for f in fmt.fields}
    if values:
        raise ProgramError(f"{opcode.name} has no field {next(iter(values))!r}")
    for f in fmt.fields:
        if not f.low <= complete[f.name] <= f.max:
            raise ProgramError(
                f"{opcode.name}.{f.name} must be {f.low} to {f.max}, not {complete[f.name]}"
            )
    return Instruction(opcode, complete)


def attach(
    instruction: Instruction, pattern: Instruction | None
) -> tuple[Instruction, Instruction | None]:
    """The instruction as its engines get it, and the PATTERN that waits for a MATMUL behind it.

    ``pattern`` is the one that waits before it.
    """
    if instruction.opcode is Opcode.PATTERN:
        return instruction, instruction
    if instruction.opcode is not Opcode.MATMUL:
        return instruction, pattern
    more = NO_PATTERN if pattern is None else pattern.values
    return Instruction(Opcode.MATMUL, {**instruction.values, **more}), None


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
    word, fmt = int(instruction.opcode), FORMATS[instruction.opcode]
    layout = fmt.layout
    for field in fmt.fields:
        word |= field.encode(instruction.values[field.name]) << layout[field.name][0]
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
        field.name: field.decode(word >> layout[field.name][0] & ((1 << field.bits) - 1))
        for field in FORMATS[opcode].fields
    })
    if pack(instruction) != data:
        raise ProgramError(f"{opcode.name} has bits set outside its fields")
    return instruction
