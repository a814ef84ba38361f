"""Instruction emission: sequence numbers, waiting distances, slots and the weight stream.

The builder knows what was written where and when, and derives from it what each instruction has to
wait for (see ``docs/microarchitecture.md``); lowering only says what it reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vitrify.arch import formats, isa
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode, Transform

from .pack import Bytes, ImageBuilder, gain_words, table_words
from .placement import Placed


@dataclass(frozen=True)
class _Write:
    """Part of a tensor that one MATMUL writes."""

    matmul: int
    row: int
    rows: int
    channel: int
    columns: int
    #: First channel of its last c tile.
    last_tile: int


@dataclass(frozen=True)
class Matmul:
    """One emitted MATMUL, for reports and checks."""

    name: str
    op: str
    macs: int
    tensor: str
    row: int
    rows: int
    channel: int
    columns: int
    bits: int
    stream_bytes: int


@dataclass
class _History:
    writes: list[_Write] = field(default_factory=list)
    #: ``(number, first row, rows)`` of the LOADs that fill it.
    loads: list[tuple[int, int, int]] = field(default_factory=list)


class Builder:
    """Collects instructions and image blocks."""

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.image = ImageBuilder(arch)
        self.matmuls: list[Matmul] = []
        self._code: list[tuple[Opcode, dict[str, int]]] = []
        self._loads = 0
        self._history: dict[str, _History] = {}
        self._gains: list[bytes] = [b"", b""]
        self._tables: list[bytes] = [b"", b""]
        self._gain_slot = 1
        self._table_slot = 1

    # Moves -------------------------------------------------------------------------------
    def load(
        self, target: Placed, region: isa.Region, offset: int, *,
        row: int = 0, rows: int | None = None,
    ) -> None:
        """LOAD rows of a tensor.  ``offset`` in the PROGRAM region is an image block's."""
        rows = target.rows if rows is None else rows
        self._code.append((Opcode.LOAD, {
            "region": region, "offset": offset, "addr": target.at(row), "stride": target.stride,
            "rows": rows, "words": target.stride, "wide": int(target.wide),
            # The memory may have been another tensor's: let everything before it finish.
            "wait_distance": min(1, len(self.matmuls)),
        }))
        history = self._history.setdefault(target.name, _History())
        history.loads.append((self._loads, row, rows))
        self._loads += 1

    def store(self, source: Placed, rows: int, offset: int) -> None:
        """STORE the first rows of a tensor to the output region."""
        writes = self._history[source.name].writes
        self._code.append((Opcode.STORE, {
            "region": isa.Region.OUTPUT, "offset": offset, "addr": source.address,
            "stride": source.stride, "rows": rows, "words": source.stride,
            "wide": int(source.wide),
            "wait_distance": self._distance(len(self.matmuls), writes[-1].matmul),
        }))

    def end(self) -> None:
        """END of the program."""
        self._code.append((Opcode.END, {}))

    # Matrix products ---------------------------------------------------------------------
    def matmul(
        self,
        values: dict[str, int],
        *,
        name: str,
        op: str,
        macs: int,
        x: Placed,
        x_row: int,
        out: Placed,
        out_row: int,
        out_channel: int,
        columns: int,
        x_channel: int = 0,
        row: int | None = None,
        stationary: Placed | None = None,
        weights: Bytes | None = None,
        gain: np.ndarray | None = None,
        table: np.ndarray | None = None,
    ) -> None:
        """Emit one MATMUL over ``values["rows"]`` rows of ``x`` into ``out``.

        ``values`` holds the arithmetic fields; addresses, tiling along the columns, slots,
        stream and distances are filled in here.  ``row`` is for reports: the first row of the
        whole tensor, where ``out`` holds a block of it.
        """
        arch, index = self.arch, len(self.matmuls)
        rows = values["rows"]
        c_tiles = -(-columns // arch.width)
        fields = dict(
            values,
            src_addr=x.at(x_row, x_channel), src_stride=x.stride,
            dst_addr=out.at(out_row, out_channel), dst_stride=out.stride,
            c_tiles=c_tiles, c_last=columns - (c_tiles - 1) * arch.width,
        )
        stream = self._stream(fields, weights, gain, table)
        if stream is not None:
            fields["stream_offset"] = self.image.add(stream)
            fields["stream_words"] = len(stream) // arch.depth
        k_channels = (values["k_tiles"] - 1) * arch.depth + values["k_last"]
        self._wait_fetch(fields, index, x, x_row, rows, x_channel, k_channels)
        if stationary is not None:
            source = self._history[stationary.name].writes
            fields["st_distance"] = self._distance(index, source[-1].matmul)
        self._wait_epilogue(fields, out)
        self._code.append((Opcode.MATMUL, fields))
        self._history.setdefault(out.name, _History()).writes.append(_Write(
            index, out_row, rows, out_channel, columns, out_channel + (c_tiles - 1) * arch.width
        ))
        self.matmuls.append(Matmul(
            name, op, macs, out.name, out_row if row is None else row, rows, out_channel, columns,
            16 if out.wide else 8, 0 if stream is None else len(stream),
        ))

    def _stream(
        self,
        fields: dict[str, int],
        weights: Bytes | None,
        gain: np.ndarray | None,
        table: np.ndarray | None,
    ) -> Bytes | None:
        """Slots and the weight stream; a table or gain already in its slot is not sent again."""
        parts = []
        if gain is not None:
            words = gain_words(self.arch, gain)
            if self._gains[self._gain_slot] != words.tobytes():
                self._gain_slot ^= 1
                self._gains[self._gain_slot] = words.tobytes()
                fields["load_gain"] = 1
                parts.append(words)
            fields["gain_slot"] = self._gain_slot
        if table is not None:
            words = table_words(table)
            if self._tables[self._table_slot] != words.tobytes():
                self._table_slot ^= 1
                self._tables[self._table_slot] = words.tobytes()
                fields["load_table"] = 1
                parts.append(words)
            fields["activation"] = 1
        # The epilogue waits while this slot is filled, needed or not; the next table takes the
        # other one.
        fields["table_slot"] = self._table_slot
        if weights is not None:
            parts.append(weights)
        return np.concatenate(parts) if parts else None

    # Waiting -----------------------------------------------------------------------------
    @staticmethod
    def _distance(now: int, then: int) -> int:
        return min(now - then, isa.MAX_DISTANCE)

    def _wait_fetch(
        self, fields: dict[str, int], index: int, x: Placed, row: int, rows: int,
        channel: int, channels: int,
    ) -> None:
        history = self._history[x.name]
        loads = [item for item in history.loads if item[1] < row + rows and row < sum(item[1:])]
        if loads and not history.writes:
            fields["load_distance"] = self._distance(self._loads, loads[-1][0])
            fields["load_stream"] = int(
                loads[-1][1:] == (row, rows) and fields["k_tiles"] == x.stride
            )
        needed = [
            w for w in history.writes
            if w.row < row + rows and row < w.row + w.rows
            and w.channel < channel + channels and channel < w.channel + w.columns
        ]
        if not needed:
            return
        last = needed[-1]
        fields["dep_distance"] = self._distance(index, last.matmul)
        if fields.get("transform", 0) in (Transform.NORM, Transform.EXP2):
            fields["dep_k"] = 0
        else:
            fields["dep_k"] = min(
                max(0, last.last_tile - channel) // self.arch.depth, fields["k_tiles"]
            )
        if last.row != row:
            # Row numbers of producer and consumer differ: the tile waits for the whole producer.
            fields["st_distance"] = self._distance(index, last.matmul)

    def _wait_epilogue(self, fields: dict[str, int], out: Placed) -> None:
        history = self._history.get(out.name)
        if history is not None and history.loads and fields["output"] == isa.Output.ADD16:
            fields["epi_load_distance"] = self._distance(self._loads, history.loads[-1][0])

    # Result ------------------------------------------------------------------------------
    def build(self) -> tuple[Bytes, int]:
        """The program image and its number of instructions."""
        size = len(self._code) * isa.INSTRUCTION_BYTES
        moved = size + -size % self.image.code_alignment
        code = bytearray()
        for opcode, fields in self._code:
            values = dict(fields)
            if opcode is Opcode.MATMUL and values.get("stream_words"):
                values["stream_offset"] += moved
            if opcode is Opcode.LOAD and values["region"] == isa.Region.PROGRAM:
                values["offset"] += moved
            code += isa.pack(isa.make(opcode, **values))
        image, offset = self.image.build(bytes(code))
        assert offset == moved
        return image, len(self._code)


def post_code(shift: int) -> int:
    """Instruction code of a post shift."""
    return formats.POST_SHIFTS.index(shift)
