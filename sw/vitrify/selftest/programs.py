"""Programs written by hand, instruction by instruction, for the whole core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vitrify.arch import formats, isa, memmap, trellis
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Output, Region, Stationary, Stats, Transform
from vitrify.codegen.pack import (
    gain_words,
    parameter_words,
    table_words,
    tile_words,
    weight_words,
)
from vitrify.golden.machine import Machine


@dataclass(frozen=True)
class Job:
    """A program, an input, and what golden makes of them."""

    image: np.ndarray
    instructions: int
    input: np.ndarray
    output: np.ndarray
    #: Token memory after the job, ``[token_words, K]``.
    tokens: np.ndarray
    #: Which of these bytes do not depend on what the token memory held before.
    output_known: np.ndarray
    tokens_known: np.ndarray
    #: The job's register TASK.
    task: int = 0

    def code(self) -> list[isa.Instruction]:
        """The instructions."""
        size = isa.INSTRUCTION_BYTES
        return [
            isa.unpack(self.image[i * size : (i + 1) * size].tobytes())
            for i in range(self.instructions)
        ]


class Assembler:
    """Instructions with their data."""

    def __init__(self, arch: ArchConfig, seed: int) -> None:
        self.arch = arch
        self.rng = np.random.default_rng(seed)
        self._code: list[tuple[Opcode, dict[str, int]]] = []
        self._data: list[np.ndarray] = []
        self._size = 0
        self._output = 0
        #: Weights, biases and multipliers of every MATMUL that has some, in program order.
        self.weights: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def data(self, block: np.ndarray) -> int:
        """Put bytes into the image; returns their offset behind the instructions."""
        at = self._size
        block = np.ascontiguousarray(block).view(np.uint8).reshape(-1)
        block = np.pad(block, (0, -len(block) % self.arch.depth))
        self._data.append(block)
        self._size += len(block)
        return at

    def op(self, opcode: Opcode, **values: int) -> None:
        """An instruction; ``offset`` and ``stream_offset`` in the image are those of `data`."""
        self._code.append((opcode, values))

    def store(self, **values: int) -> None:
        """STORE to the next place of the output."""
        size = values["rows"] * values["words"] * (1 + values.get("wide", 0)) * self.arch.depth
        self.op(Opcode.STORE, region=Region.OUTPUT, offset=self._output, **values)
        self._output += size

    def matmul(
        self, depth: int, columns: int, *, gain: int | np.ndarray = False,
        table: int | np.ndarray = False, tasks: int = 1, **values: int,
    ) -> None:
        """A MATMUL; with random weights, if it has any, and a multiplier that fits the depth.

        Those of STORED are put to ``st_addr`` by a LOAD just before.
        ``gain`` and ``table`` are arrays, or random if just True.  With ``tasks`` there are so
        many streams.
        """
        arch, rng = self.arch, self.rng
        scale = int(2**16 / np.sqrt(depth) * 0.8)
        streams = []
        for _ in range(tasks):
            parts = [np.zeros(0, np.uint8)]
            if gain is not False:
                own = gain if isinstance(gain, np.ndarray) else rng.integers(1, 256, depth)
                parts.append(gain_words(arch, own.astype(np.uint8)))
            if table is not False:
                own = table if isinstance(table, np.ndarray) else rng.integers(-127, 128, 256)
                parts.append(table_words(own.astype(np.int8)))
            source = values.get("stationary", Stationary.WEIGHTS)
            if source in (Stationary.WEIGHTS, Stationary.STORED):
                self.weights.append((
                    random_weights(arch, rng, columns, depth, bool(values.get("nibbles"))),
                    rng.integers(-9000, 9000, columns).astype(np.int32),
                    rng.integers(scale // 2, scale, columns).astype(np.uint16),
                ))
                if source == Stationary.WEIGHTS:
                    parts.append(weight_words(
                        arch, *self.weights[-1], nibbles=bool(values.get("nibbles"))))
                else:
                    (weight, *parameters), four = self.weights[-1], bool(values.get("nibbles"))
                    parts.append(parameter_words(arch, *parameters, nibbles=four).reshape(-1))
                    self._store_weights(
                        tile_words(arch, weight, nibbles=four, stored=True), values["st_addr"])
                    values = {"load_distance": 1, **values}
            streams.append(np.concatenate(parts))
        k, c, stream = arch.depth, arch.tile_width(values.get("nibbles", 0)), streams[0]
        if tasks > 1:
            values["task_stride"] = len(stream) // k
        self.op(
            Opcode.MATMUL, k_tiles=-(-depth // k), k_last=(depth - 1) % k + 1,
            c_tiles=-(-columns // c), c_last=(columns - 1) % c + 1,
            load_gain=int(gain is not False), load_table=int(table is not False),
            activation=int(table is not False), stream_words=len(stream) // k,
            stream_offset=self.data(np.concatenate(streams)) if len(stream) else 0,
            **{"pre_shift": 4, "post_shift": 2, "multiplier": scale, **values},
        )

    def _store_weights(self, tiles: np.ndarray, addr: int) -> None:
        words = tiles.size // (2 * self.arch.depth)
        self.op(Opcode.LOAD, region=Region.PROGRAM, offset=self.data(tiles), addr=addr, rows=1,
                stride=words, words=words, wide=1)

    def again(self, **changes: int) -> None:
        """The last instruction with changes, and the same data."""
        opcode, values = self._code[-1]
        self._code.append((opcode, {**values, **changes}))

    def build(self, inputs: np.ndarray, task: int = 0) -> Job:
        """Assemble, and run on the golden machine."""
        self.op(Opcode.END)
        code = len(self._code) * isa.INSTRUCTION_BYTES
        base = -(-code // memmap.ALIGNMENT) * memmap.ALIGNMENT
        packed = b""
        for opcode, values in self._code:
            moved = dict(values)
            if "stream_offset" in moved:
                moved["stream_offset"] += base
            if moved.get("region") == Region.PROGRAM and "offset" in moved:
                moved["offset"] += base
            packed += isa.pack(isa.make(opcode, **moved))
        head = np.zeros(base, np.uint8)
        head[:code] = np.frombuffer(packed, np.uint8)
        image = np.concatenate([head, *self._data])
        runs = []
        for before in (0x00, 0xFF):
            machine = Machine(self.arch)
            machine.tokens.bytes[:] = before
            output = machine.run(image, len(self._code), inputs, self._output, task=task)
            runs.append((output, machine.tokens.bytes))
        (output, tokens), (other_output, other_tokens) = runs
        return Job(image, len(self._code), inputs, output, tokens, output == other_output,
                   tokens == other_tokens, task)


def random_weights(
    arch: ArchConfig, rng: np.random.Generator, columns: int, depth: int, nibbles: bool
) -> npt.NDArray[np.int8]:
    """Whatever the bits can be."""
    if nibbles and arch.trellis_codes:
        codes = rng.integers(16, size=(-(-columns // arch.width), arch.width, depth))
        return trellis.decode(codes).reshape(-1, depth)[:columns]
    low, high = (-8, 8) if nibbles else (-127, 128)
    return rng.integers(low, high, (columns, depth)).astype(np.int8)


def every_mechanism(arch: ArchConfig, seed: int) -> Job:
    """Lists, both kinds of tensors, all transforms, stationary sources, outputs and statistics."""
    a = Assembler(arch, seed)
    rng, k, size = a.rng, arch.depth, arch.bank_words
    rows, dim, head, listed = 18, 2 * k + 3, k + 1, 11
    words, head_words = -(-dim // k), -(-head // k)

    def place(bank: int, at: int = 0) -> int:
        return bank * size + at

    x, gathered, q, key, value, scores, mixed, last = (
        place(0), place(1), place(0, 80), place(1, 80), place(2), place(3), place(2, 80),
        place(3, 120),
    )
    residual = place(2)              # the third pair of banks
    norm = dict(zip(("inv_dim", "inv_shift"), formats.inv_dim(dim), strict=True))

    inputs = rng.integers(-128, 128, (words, rows, k)).astype(np.int8).view(np.uint8).reshape(-1)
    stream = rng.integers(-3000, 3000, (words, rows, k)).astype("<i2")
    # The epilogue stores zeros in lanes beyond the last column; golden leaves them.
    stream[-1, :, (dim - 1) % k + 1 :] = 0
    planes = np.stack([stream & 0xFF, stream >> 8 & 0xFF], axis=2).astype(np.uint8)
    source = rng.permutation(rows)[:listed].astype("<u2")
    target = rng.permutation(rows)[:listed].astype("<u2")
    a.op(Opcode.LOAD_INDEX, region=Region.PROGRAM, offset=a.data(source), base=3, count=listed)
    a.op(Opcode.LOAD_INDEX, region=Region.PROGRAM, offset=a.data(target), base=20, count=listed)
    a.op(Opcode.LOAD, region=Region.INPUT, offset=0, addr=x, stride=words, rows=rows, words=words)
    a.op(Opcode.LOAD, region=Region.PROGRAM, offset=a.data(planes), addr=residual, stride=words,
         rows=rows, words=words, wide=1)
    # Rows picked and placed by lists, through a table.
    a.matmul(dim, dim, table=True, rows=listed, src_addr=x, src_stride=words, src_list=1,
             src_list_base=3, dst_addr=gathered, dst_stride=words, dst_list=1, dst_list_base=20,
             load_distance=2, epi_load_distance=3, nibbles=int(arch.nibbles), pre_shift=0)
    # Residual, with statistics; the residual's load comes after that of x.
    a.matmul(dim, dim, rows=rows, src_addr=x, src_stride=words, output=Output.ADD16,
             dst_addr=residual, dst_stride=words, stats=Stats.NORM, stat_dst=5, epsilon=3,
             load_distance=2, load_stream=1, epi_load_distance=1, epi_load_stream=1, post_shift=1,
             pre_shift=5, **norm)
    for i, (into, extra) in enumerate((
        (q, {"transform": Transform.NORM, "stat_src": 5}),
        (key, {"transform": Transform.SCALE, "norm_shift": 13, "norm_mantissa": 300}),
        (value, {"transform": Transform.NORM, "stat_src": 5}),
    )):
        a.matmul(dim, head, gain=True, gain_slot=i & 1, nibbles=int(arch.nibbles and i == 1),
                 rows=rows, src_addr=residual,
                 src_stride=words, dst_addr=into, dst_stride=head_words, dep_distance=1 + i,
                 **extra)
    a.matmul(head, rows, rows=rows, src_addr=q, src_stride=head_words,
             stationary=Stationary.ROWS, st_addr=key, st_stride=head_words, st_distance=2,
             dst_addr=scores, dst_stride=-(-rows // k), stats=Stats.MAX, stat_dst=40,
             dep_distance=3, pre_shift=6, post_shift=2)
    a.matmul(rows, head, rows=rows, src_addr=scores, src_stride=-(-rows // k),
             transform=Transform.EXP2, stat_src=40, stationary=Stationary.COLUMNS,
             st_addr=value, st_stride=head_words, st_distance=2, row_scale=1,
             dst_addr=mixed, dst_stride=head_words, dep_distance=1, dep_k=0)
    a.matmul(head, k, rows=rows, src_addr=mixed, src_stride=head_words, dst_addr=last,
             dst_stride=1, dep_distance=1)
    # One row, to int16.  Its own wait knows of row 0; the MATMUL before has waited for row 4.
    a.matmul(head, 3, rows=1, src_addr=mixed + 4 * head_words, src_stride=head_words,
             output=Output.INT16, dst_addr=place(2, 120), dst_stride=1, dep_distance=2)
    for nibbles in range(arch.stored_weights + arch.stored_nibbles):
        # A part of the last tile is used.
        columns = (2 - nibbles) * arch.tile_width(nibbles) + 1
        out = {"stride": -(-columns // k), "rows": rows}
        weights = place(1, 160) + nibbles * words * 3 * arch.tile_pairs(False)
        into = place(4, 124) if nibbles else place(0, 160)
        a.matmul(dim, columns, rows=rows, src_addr=x, src_stride=words, nibbles=nibbles,
                 stationary=Stationary.STORED, st_addr=weights, dst_addr=into,
                 dst_stride=out["stride"])
        a.store(addr=into, words=out["stride"], wait_distance=1, **out)
    for address, width in ((gathered, words), (mixed, head_words), (last, 1)):
        a.store(addr=address, stride=width, rows=rows, words=width, wait_distance=1)
    a.store(addr=residual, stride=words, rows=rows, words=words, wide=1, wait_distance=2)
    a.store(addr=place(2, 120), stride=1, rows=1, words=1, wide=1, wait_distance=1)
    return a.build(inputs)
