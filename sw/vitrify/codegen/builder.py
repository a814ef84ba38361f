"""Instruction emission: sequence numbers, waiting distances, slots and the weight stream.

The builder knows what was written where and when, and derives from it what each instruction has to
wait for (see ``docs/microarchitecture.md``); lowering only says what it reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrify.arch import isa, memmap, support
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import CapacityError
from vitrify.arch.isa import Opcode, Transform
from vitrify.arch.modes import ADDING_OUTPUTS

from . import ranges
from .history import History, Write
from .lists import NEVER, RowLists
from .pack import Bytes, ImageBuilder, gain_words, table_words
from .placement import Placed
from .product import At, MatrixProduct, Picks


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


class Builder:
    """Collects instructions and image blocks."""

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.image = ImageBuilder(arch)
        self.matmuls: list[Matmul] = []
        self._code: list[tuple[Opcode, dict[str, int]]] = []
        self._loads = 0
        #: The latest MATMULs that a ROUTE has waited for, and that use its queues.
        self._routed = self._queued = NEVER
        self._history: dict[str, History] = {}
        self._lists = RowLists(arch)
        self._gains: list[bytes] = [b"", b""]
        self._tables: list[bytes] = [b"", b""]
        self._gain_slot = 1
        self._table_slot = 1

    # Moves -------------------------------------------------------------------------------
    def load(
        self, target: Placed, region: isa.Region, offset: int, *,
        row: int = 0, rows: int | None = None, after: int | None = None,
        every: range | None = None,
    ) -> None:
        """LOAD rows of a tensor.  ``offset`` in the PROGRAM region is an image block's.

        ``after`` is the MATMUL that used the place last (``NEVER``: none; by default all before).
        ``every`` are the rows that are at ``offset``, counted from the first of these.
        """
        rows = target.rows if rows is None else rows
        self._move(Opcode.LOAD, region, target, row, rows, offset, (
            min(1, len(self.matmuls)) if after is None
            else 0 if after == NEVER else self._distance(len(self.matmuls), after)
        ), every)
        # Of several the last: it ends behind the others, and has rows that no MATMUL follows.
        history = self._history.setdefault(target.name, History())
        history.loads.append((self._loads - 1, target.first + row, rows))

    def preload(self, target: Placed, weights: Bytes, after: int | None) -> int:
        """LOAD tiles behind MATMUL ``after``, the last to use the place; the number of the LOAD."""
        wait = 0 if after is None else self._distance(len(self.matmuls), after)
        offset, pair = self.image.add(weights), 2 * self.arch.depth
        words = -(-len(weights) // pair)
        for first in range(0, words, ranges.MOST_WORDS):
            count = min(ranges.MOST_WORDS, words - first)
            self._add(f"tensor {target.name!r}", Opcode.LOAD, {
                "region": isa.Region.PROGRAM, "offset": offset + first * pair,
                "addr": target.address + first, "stride": count, "rows": 1, "words": count,
                "wide": 1, "wait_distance": wait,
            })
            self._loads += 1
        return self._loads - 1

    def store(self, source: Placed, row: int, rows: int, offset: int) -> None:
        """STORE rows of a tensor to the output region."""
        writes = self._history[source.name].writes
        wait = self._distance(len(self.matmuls), writes[-1].matmul)
        self._move(Opcode.STORE, isa.Region.OUTPUT, source, row, rows, offset, wait)

    def _move(
        self, opcode: Opcode, region: isa.Region, tensor: Placed, row: int, rows: int, offset: int,
        wait: int, every: range | None = None,
    ) -> None:
        """LOAD or STORE rows of a tensor, in as many pieces as it takes."""
        size = self.arch.depth * (1 + tensor.wide)
        for first, count, word, words, before in ranges.pieces(rows, tensor.stride, every):
            self._add(f"tensor {tensor.name!r}", opcode, {
                "region": region, "offset": offset + before * size,
                "addr": tensor.at(row + first) + word, "stride": tensor.stride, "rows": count,
                "words": words, "wide": int(tensor.wide), "wait_distance": wait,
            })
            self._loads += opcode is Opcode.LOAD

    def _add(self, what: str, opcode: Opcode, fields: dict[str, int]) -> None:
        """Append an instruction for ``what``, if its fields take the values."""
        ranges.check(self.arch, what, opcode, fields)
        self._code.append((opcode, fields))

    def route(
        self, logits: Placed, *, experts: int, choices: int, normalise: bool,
        after: Placed | None = None, row: int = 0, rows: int | None = None, room: int = 0,
        joins: bool = False,
    ) -> None:
        """ROUTE rows of ``logits``; ``after`` is there before anything is routed, too.

        Its queues have ``room`` for rows of further ones, which ``joins`` them.
        """
        rows = logits.rows if rows is None else rows
        names = [logits.name] if after is None else [logits.name, after.name]
        size = memmap.queue_entries(rows, choices, experts, room)
        listed = NEVER if joins else self._lists.route(size, self._queued)
        last = max(listed, *(self._history[name].writes[-1].matmul for name in names))
        self._add(f"the router of {logits.name!r}", Opcode.ROUTE, {
            "src_addr": logits.at(row), "src_stride": logits.stride, "rows": rows,
            "experts": experts, "choices": choices, "normalise": int(normalise),
            "room": room, "joins": int(joins),
            "wait_distance": self._distance(len(self.matmuls), last),
        })
        self._routed = last

    def just_made(self, x: Placed) -> bool:
        """Whether the last MATMUL wrote the rows of ``x``, one after another."""
        writes = self._history.get(x.name, History()).writes
        last = writes[-1] if writes else None
        return (
            last is not None and last.matmul == len(self.matmuls) - 1
            and last.rows == x.rows and not last.queued
        )

    def rename(self, old: str, new: str) -> None:
        """What was known of a tensor is from now on of another."""
        self._history[new] = self._history.pop(old)

    def end(self) -> None:
        """END of the program."""
        self._code.append((Opcode.END, {}))

    # Matrix products ---------------------------------------------------------------------
    def matmul(self, product: MatrixProduct) -> None:
        """Emit one MATMUL; tiling, slots, stream and distances are filled in here."""
        arch, index, queue = self.arch, len(self.matmuls), product.queue
        ranges.check_depth(product)
        x, out, columns = product.x, product.out, product.columns
        width = arch.tile_width(product.nibbles)
        c_tiles, k_tiles = -(-columns // width), -(-product.depth // arch.depth)
        fields = dict(
            product.fields, rows=product.rows,
            src_addr=x.address, src_stride=product.fold * x.tensor.stride,
            dst_addr=out.address, dst_stride=out.tensor.stride,
            k_tiles=k_tiles, k_last=product.depth - (k_tiles - 1) * arch.depth,
            c_tiles=c_tiles, c_last=columns - (c_tiles - 1) * width,
            nibbles=int(product.nibbles),
        )
        if queue is not None:
            fields |= queue.fields(out.channel)
            self._queued = index
        size = self._stream(fields, product)
        if queue is not None and queue.gathers:
            self._wait_picked(fields, index, x.tensor)
        elif product.picks is not None:
            self._pick(fields, index, x, product.picks)
        elif product.taps is not None:
            self._wait_any(fields, index, x, product.taps.height * product.taps.width)
        elif product.fold > 1:
            self._wait_any(fields, index, x, product.fold * product.rows)
        else:
            self._wait_fetch(fields, index, x, product)
        if product.divisor is not None:
            # It has been made of the same rows, so that these are there, too.
            self._wait_any(fields, index, product.divisor, product.rows)
        if product.tiles is not None:
            at = product.tiles.at
            writes = self._history[at.tensor.name].writes
            fields |= {
                "stationary": product.tiles.kind, "st_addr": at.address,
                "st_stride": at.tensor.stride,
                "st_distance": self._distance(index, writes[-1].matmul),
            }
        if product.stored is not None:
            size += c_tiles * k_tiles * arch.tile_pairs(product.nibbles) * 2 * arch.depth
            weights = self._distance(self._loads, product.stored.load)
            # LOADs end in their order: the last one of those of rows, a list and weights.
            fields |= {
                "stationary": isa.Stationary.STORED, "st_addr": product.stored.address,
                "load_distance": min(weights, fields.get("load_distance", weights)),
                "load_stream": 0,
            }
        pattern = product.pattern(k_tiles)
        if product.k_step and "load_gain" in fields:
            assert product.gain is not None
            pattern["gain_words"] = -(-len(product.gain) // arch.depth)
        if product.adds is not None:
            fields["add_addr"] = product.adds.address
            pattern |= {"add_source": 1, "add_stride": product.adds.tensor.stride}
        self._wait_epilogue(fields, product.adds or out)
        what = f"layer {product.name!r}"
        ranges.check(arch, what, Opcode.MATMUL, fields)
        needs = support.lacking(arch, isa.make(Opcode.MATMUL, **fields))
        if pattern:
            self._add(what, Opcode.PATTERN, pattern)
            needs += [] if arch.patterns else [("patterns", "access patterns")]
        for mechanism, what in needs:
            raise CapacityError(
                f"{product.name!r} needs {what}, and arch {arch.name!r} is without {mechanism!r}; "
                f"choose an architecture that has them"
            )
        self._code.append((Opcode.MATMUL, fields))
        scattered = queue is not None and queue.scatters
        rows = (out.tensor.first, out.tensor.rows) if scattered else (out.number, product.rows)
        self._history.setdefault(out.tensor.name, History()).writes.append(Write(
            index, *rows, out.channel, columns, out.channel + (c_tiles - 1) * width, scattered
        ))
        self.matmuls.append(Matmul(
            name=product.name, op=product.op, macs=product.macs, tensor=out.tensor.name,
            row=out.tensor.first + (out.row if product.row is None else product.row),
            rows=product.rows,
            channel=out.channel, columns=columns, bits=16 if out.tensor.wide else 8,
            stream_bytes=size,
        ))

    def _stream(self, fields: dict[str, int], product: MatrixProduct) -> int:
        """Slots and the weight stream, whose bytes are returned.

        A table or gain already in its slot is not sent again.  What a MATMUL brings that may be
        skipped, nobody may count on: it goes to the slot that the others have left.
        """
        gain, table, weights = product.gain, product.table, product.weights
        skipped = product.queue is not None
        head = []
        if gain is not None:
            words, slot = gain_words(self.arch, gain), self._gain_slot
            if self._gains[slot] != words.tobytes():
                slot ^= 1
                self._gains[slot] = b"" if skipped else words.tobytes()
                self._gain_slot ^= not skipped
                fields["load_gain"] = 1
                head.append(words)
            fields["gain_slot"] = slot
        # The epilogue waits while its slot is filled, needed or not; the next table takes the
        # other one.
        fields["table_slot"] = self._table_slot
        if table is not None:
            words, slot = table_words(table), self._table_slot
            if self._tables[slot] != words.tobytes():
                slot ^= 1
                self._tables[slot] = b"" if skipped else words.tobytes()
                self._table_slot ^= not skipped
                fields["load_table"] = 1
                head.append(words)
            fields |= {"activation": 1, "table_slot": slot}
        parts = [*head, *weights[:1]]
        if not parts:
            return 0
        sizes = sum(map(len, parts))
        fields["stream_words"] = sizes // self.arch.depth
        if len(weights) > 1:
            fields["task_stride"] = fields["stream_words"]
        for more in weights[1:]:
            parts += [*head, more]
        fields["stream_offset"] = self.image.add(np.concatenate(parts))
        return sizes

    # Waiting -----------------------------------------------------------------------------
    @staticmethod
    def _distance(now: int, then: int) -> int:
        return min(now - then, isa.MAX_DISTANCE)

    def _seen(self, x: Placed) -> History:
        """What has to be waited for before ``x``, or both of its planes, can be read.

        Whoever writes to a tensor has waited for the LOADs that filled it.
        """
        parts = [self._history[name] for name in x.planes or (x.name,)]
        return History(
            sorted((w for part in parts for w in part.writes), key=lambda w: w.matmul),
            sorted(load for part in parts if not part.writes for load in part.loads),
        )

    def _wait_fetch(
        self, fields: dict[str, int], index: int, x: At, product: MatrixProduct
    ) -> None:
        row, rows, channel = x.number, fields["rows"], x.channel
        moved = (fields["c_tiles"] - 1) // product.c_group * product.k_step
        channels = product.depth + moved * self.arch.depth
        history = self._seen(x.tensor)
        loads = [item for item in history.loads if item[1] < row + rows and row < sum(item[1:])]
        if loads:
            fields["load_distance"] = self._distance(self._loads, loads[-1][0])
            fields["load_stream"] = int(
                loads[-1][1:] == (row, rows) and fields["k_tiles"] == x.tensor.stride
                and not x.tensor.planes and not product.k_step
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
        if last.queued or last.row < row:
            # Rows are counted from the first one of each, and so would come before their time.
            fields["dep_end"] = 1
        elif fields.get("transform", 0) in (Transform.NORM, Transform.EXP2) or product.k_step:
            fields["dep_k"] = 0
        else:
            fields["dep_k"] = min(
                max(0, last.last_tile - channel) // self.arch.depth, fields["k_tiles"]
            )

    def _pick(self, fields: dict[str, int], index: int, x: At, picks: Picks) -> None:
        """Read rows by a list, which is loaded unless it is there."""
        found = self._lists.find(picks)
        if found is None:
            found, before = self._lists.place(picks, self._loads, index)
            self._add(f"a list of rows of {x.tensor.name!r}", Opcode.LOAD_INDEX, {
                "region": isa.Region.PROGRAM, "base": found.base, "count": found.size,
                "offset": self.image.add(np.asarray(picks, "<u2").view(np.uint8)),
                "wait_distance": 0 if before == NEVER else self._distance(index, before),
            })
            self._loads += 1
        found.user = index
        fields |= {"src_list": 1, "src_list_base": found.base}
        least, end = int(picks.min()), int(picks.max()) + 1
        self._wait_any(fields, index, At(x.tensor, x.row + least), end - least, found.load)

    def _wait_any(
        self, fields: dict[str, int], index: int, x: At, rows: int, load: int = NEVER
    ) -> None:
        """So many rows may be read in any order, once all are written or loaded.

        A ``load`` is waited for, too.
        """
        history, first, end = self._seen(x.tensor), x.number, x.number + rows
        needed = [w.matmul for w in history.writes if w.row < end and first < w.row + w.rows]
        if needed:
            fields |= {"dep_distance": self._distance(index, needed[-1]), "dep_end": 1}
        loads = [n for n, row, count in history.loads if row < end and first < row + count]
        last = max([load, *loads])
        if last != NEVER:
            fields["load_distance"] = self._distance(self._loads, last)

    def _wait_picked(self, fields: dict[str, int], index: int, x: Placed) -> None:
        """Any row may be read: wait for the last write, unless the ROUTE has waited for it."""
        last = self._history[x.name].writes[-1].matmul
        if last > self._routed:
            fields |= {"dep_distance": self._distance(index, last), "dep_end": 1}

    def _wait_epilogue(self, fields: dict[str, int], out: At) -> None:
        """Old values come from ``out``, which a LOAD may still be bringing."""
        history = self._history.get(out.tensor.name)
        if history is not None and history.loads and fields["output"] in ADDING_OUTPUTS:
            number, *block = history.loads[-1]
            fields["epi_load_distance"] = self._distance(self._loads, number)
            fields["epi_load_stream"] = int(
                not out.channel and block == [out.number, fields["rows"]]
            )

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
            moves = opcode in (Opcode.LOAD, Opcode.LOAD_INDEX)
            if moves and values["region"] == isa.Region.PROGRAM:
                values["offset"] += moved
            ranges.check(self.arch, "the program", opcode, values)
            code += isa.pack(isa.make(opcode, **values))
        image, offset = self.image.build(bytes(code))
        assert offset == moved
        return image, len(self._code)
