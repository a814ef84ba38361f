"""Opcodes, and the choices that fields of an instruction make."""

from __future__ import annotations

import enum


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
    #: Access patterns of the next MATMUL: a prefix of it.
    PATTERN = 7


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
    #: The product of a pair's two int8 planes: the low one as SCALE has it, negated where the high
    #: one is negative, whose magnitude is the gain.
    PRODUCT = 4


#: Transforms that read pairs of words.
WIDE_TRANSFORMS = (Transform.NORM, Transform.SCALE, Transform.PRODUCT)


class Stationary(enum.IntEnum):
    """Where the stationary tile comes from."""

    #: The weight stream in DRAM: tiles with their bias and multipliers.
    WEIGHTS = 0
    #: Token memory; output column = token row, depth = channel (K of attention).
    ROWS = 1
    #: Token memory; output column = channel, depth = token row (V of attention).
    COLUMNS = 2
    #: Token memory, where a LOAD has put them in the order of the weight stream, even columns in
    #: the low plane and odd ones in the high plane (those of 4 bits as
    #: :func:`~vitrify.arch.memmap.stored_thirds` says); the stream has bias and multipliers only.
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
    #: As INT8; what is stored (int8) is added exactly, before the saturation.
    ADD8 = 3


#: Outputs of one byte, and those that read what is stored.
NARROW_OUTPUTS = (Output.INT8, Output.ADD8)
ADDING_OUTPUTS = (Output.ADD16, Output.ADD8)


class Stats(enum.IntEnum):
    """Row statistic that the epilogue gathers."""

    NONE = 0
    #: Σx and Σx² of the written int16 row, finished to mean and reciprocal deviation.
    NORM = 1
    #: Maximum of the integer part of the written logits.
    MAX = 2
    #: As NORM with mean 0: the reciprocal of the root of the mean square.
    RMS = 3
    #: Σx of the written row, 0 … 2**SOFTMAX_SUM_BITS - 1, saturated.
    SUM = 4


#: Statistics that a NORM transform applies.
NORM_STATS = (Stats.NORM, Stats.RMS)


class RowScale(enum.IntEnum):
    """What the requantisation of a row divides by, instead of its multipliers."""

    NONE = 0
    #: The sum of the row's operand bytes (unsigned), gathered on read in the first c tile.
    OPERAND = 1
    #: The SUM of another MATMUL: entry ``stat_src`` plus the result's row id.
    STATISTIC = 2


class Combine(enum.IntEnum):
    """What ADD16 and ADD8 do with what is stored."""

    ADD = 0
    #: The larger of the saturated result and what is stored.
    MAX = 1


class Region(enum.IntEnum):
    """Base register that a DRAM offset is added to."""

    PROGRAM = 0
    INPUT = 1
    OUTPUT = 2
