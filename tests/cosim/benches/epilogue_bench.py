"""The epilogue with a model of everything around it; every write is compared, in order."""

import dataclasses
from collections import defaultdict, deque

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, ReadOnly
from epilogue_model import (
    Expectation,
    Work,
    command,
    drain_rows,
    make,
    param_words,
    random_program,
    sum_stat,
)

from vitrify.arch.modes import ADDING_OUTPUTS, WITH_PARAMETERS, Output, RowScale, Stats
from vitrify.cosim import bench
from vitrify.golden.memory import TokenMemory
from vitrify.rtl import interfaces

DRAIN_LATENCY = bench.option("drain_latency", 2)


@dataclasses.dataclass
class Pace:
    """Probabilities of idling in a cycle."""

    command: float = 0.0
    drain: float = 0.0
    param: float = 0.0
    residual: float = 0.0
    load: float = 0.0
    #: Cycles from a drain row's release to its next content (fetch to accumulator).
    refill: int = interfaces.MIN_PASS


class Surroundings:
    """Dispatcher, loader, accumulators, memories and mover of one run."""

    def __init__(self, dut, works: list[Work], pace: Pace) -> None:
        self.dut, self.works, self.pace, self.arch = dut, works, pace, bench.arch()
        self.random = bench.rng(99)
        noise = self.random.integers(0, 256, (self.arch.token_words, self.arch.depth))
        self.tokens = TokenMemory(self.arch)
        self.tokens.bytes[:] = noise.astype(np.uint8)
        golden = TokenMemory(self.arch)
        golden.bytes[:] = self.tokens.bytes
        self.want = Expectation(self.arch, golden)
        for work in works:
            self.want.execute(work)
        self.cells, self.stats = defaultdict(list), defaultdict(list)
        self.done = 0                           # rows of c tiles that progress has announced
        self.order = [
            (f"row {r} of c tile {c} of instruction {i}: {works[i].op}", row)
            for i, tiles in enumerate(self.want.rows)
            for c, rows in enumerate(tiles) for r, row in enumerate(rows)
        ]
        self.busy_cycles: list[int] = []
        self._drain_setup()
        self._loader_setup()
        self._lists_setup()
        self.reads: deque[tuple[int, ...] | None] = deque([None] * (interfaces.PIECE_LATENCY - 1))

    # Accumulators ---------------------------------------------------------------------------
    def _drain_setup(self) -> None:
        #: ``(work, tile)`` of every global c tile.
        self.tiles = [(w, c) for w in range(len(self.works))
                      for c in range(self.works[w].tiles)]
        self.drain = [int(self.random.integers(1 << 60)) for _ in range(self.arch.max_rows)]
        self.drain_at = [0, 0]
        self.drain_reads = deque([0] * DRAIN_LATENCY)
        self.released = deque([(0, 0)] * self.pace.refill)
        self.sums = [[0] * self.arch.max_rows for _ in range(2)]
        changes = [(w.op.row_scale == RowScale.OPERAND) * (w.op.repeats + 1) for w in self.works]
        banks = np.cumsum([0, *changes]) % 2
        drained = [one for w in self.works for one in drain_rows(self.arch, w, self.random)]
        self.rows, self.together = zip(*drained, strict=True)
        self.banks = banks.tolist()

    def _drain_step(self) -> None:
        tile, row = self.drain_at
        if tile == len(self.tiles) or self.random.random() < self.pace.drain:
            return
        index, c = self.tiles[tile]
        read_tile, read_row = self.released[0]
        free = tile == 0 or read_tile > tile - 1 or (read_tile == tile - 1 and read_row > row)
        behind = tile + self.together[tile]
        if not free or self.loaded["param_end"] < behind or self.loaded["table_end"] <= index:
            return
        work = self.works[index]
        self.drain[row] = self.rows[tile][row]
        again, c = divmod(c, work.op.c_tiles)
        if work.op.row_scale == RowScale.OPERAND and c == 0:
            self.sums[(self.banks[index] + again) % 2][row] = int(work.sums[again][row])
        row += 1
        self.drain_at = [behind, 0] if row == work.op.rows else [tile, row]

    # Loader ---------------------------------------------------------------------------------
    def _loader_setup(self) -> None:
        self.loaded = {"table_end": 0, "param_end": 0}
        self.stream = deque()
        tile = 0
        for index, work in enumerate(self.works):
            if work.table is not None:
                size = self.arch.depth
                raw = work.table.tobytes()
                for word in range(self.arch.table_words):
                    data = int.from_bytes(raw[word * size : (word + 1) * size], "little")
                    self.stream.append(("table", index, {
                        "slot": work.op.table_slot, "word": word, "data": data}))
            self.stream.append(("table_end", index, None))
            for c in range(work.tiles):
                if work.op.stationary in WITH_PARAMETERS:
                    for fields in param_words(self.arch, work, c):
                        fields["slot"] = tile % self.arch.param_slots
                        self.stream.append(("param", tile, fields))
                self.stream.append(("param_end", tile, None))
                tile += 1

    def _loader_step(self, progress) -> None:
        """Chooses what the loader writes in the next cycle."""
        dut = self.dut
        dut.param__valid.value = dut.table__valid.value = 0
        if self.random.random() < self.pace.param:
            return
        while self.stream and self.stream[0][0].endswith("_end"):
            kind, number, _ = self.stream.popleft()
            self.loaded[kind] = number + 1
        if not self.stream:
            return
        kind, number, fields = self.stream[0]
        if kind == "table":
            if number - self.finished(progress) < 2:
                dut.table__valid.value = 1
                dut.table__p.value = bench.pack(interfaces.table_write(self.arch), fields)
                self.stream.popleft()
        elif (number - progress["tiles_done"]) % 256 < self.arch.param_slots:
            dut.param__valid.value = 1
            dut.param__p.value = bench.pack(interfaces.param_write(self.arch), fields)
            self.stream.popleft()

    @staticmethod
    def finished(progress) -> int:
        return progress["seq"]          # runs are shorter than the sequence numbers wrap

    # Lists ----------------------------------------------------------------------------------
    def _lists_setup(self) -> None:
        """A load before each listed instruction brings its list, before others old values."""
        self.list_bases, self.load_seqs, self.loads = [], [], []
        self.entries = [int(v) for v in self.random.integers(0, 1 << 16, self.arch.index_entries)]
        self.gates = [int(v) for v in self.random.integers(0, 1 << 16, self.arch.index_entries)]
        base = 0
        for index, work in enumerate(self.works):
            if work.op.dst_list:
                base = 0 if base + work.op.rows > self.arch.index_entries else base
                self.loads.append((index, base, work))
                self.list_bases.append(base)
                base += work.op.rows
            else:
                self.list_bases.append(0)
                if work.op.epi_load_stream:
                    self.loads.append((index, 0, work))
            self.load_seqs.append(len(self.loads))
        #: Loads finished, and elements of the next one.
        self.load_seq = self.load_words = 0
        #: ``(load, element)`` that each read of an old value needs; reads during their own load.
        self.needs = deque(
            (self.load_seqs[index] - 1, column // self.arch.depth * work.op.rows + row)
            if work.op.epi_load_stream else (-1, 0)
            for index, work in enumerate(self.works) if work.op.output in ADDING_OUTPUTS
            for _ in range(work.op.repeats + 1) for c in range(work.op.c_tiles)
            for row in range(work.op.rows)
            for width in (self.arch.tile_width(work.op.nibbles),)
            for column in range(c * width, min(work.columns, (c + 1) * width), self.arch.lanes)
        )
        self.followed = 0
        self.list_read = self.gate_read = 0

    def _load_step(self, progress) -> None:
        if self.load_seq < len(self.loads) and self.random.random() >= self.pace.load:
            index, base, work = self.loads[self.load_seq]
            if work.op.epi_load_stream:
                self.load_words += 1
                if self.load_words == work.op.rows * -(-work.columns // self.arch.depth):
                    self.load_seq, self.load_words = self.load_seq + 1, 0
                return
            # An earlier list may lie in the same place: no instruction may still use it.
            if self.finished(progress) >= index - 1:
                self.entries[base : base + len(work.ids)] = [int(i) for i in work.ids]
                self.gates[base : base + len(work.ids)] = [
                    bench.pack(interfaces.GATE, {"weight": weight, "first": first})
                    for weight, first in work.gates.tolist()
                ]
                self.load_seq += 1

    # Cycles ---------------------------------------------------------------------------------
    async def run(self) -> None:
        dut, layout = self.dut, interfaces.epilogue_command(self.arch)
        words = [
            bench.pack(layout, {
                name: value for name, value in command(work, i, load, base).items()
                if name in layout.members
            })
            for i, (work, load, base) in enumerate(
                zip(self.works, self.load_seqs, self.list_bases, strict=True))
        ]
        dut.result__ready.value = 1
        cocotb.start_soon(bench.stream_put(dut, "command", words, gap=self.pace.command))
        progress, accepted = {"seq": 0, "tiles_done": 0}, 0
        for cycle in range(20_000):
            tile, row = self.drain_at
            dut.drain_written.value = bench.pack(
                interfaces.DRAIN_PROGRESS, {"tile": tile % 256, "row": row})
            dut.mover.value = bench.pack(
                interfaces.MOVER_PROGRESS, {"seq": self.load_seq, "words": self.load_words})
            dut.residual__ready.value = int(self.random.random() >= self.pace.residual)
            await ReadOnly()
            progress = bench.unpack(interfaces.EPILOGUE_PROGRESS, int(dut.progress.value))
            self._check_progress(progress)
            if dut.busy.value == 1:
                self.busy_cycles.append(cycle)
            drained, listed, summed, old = self._sample()
            assert dut.idle.value == 0 or self.finished(progress) == accepted, "idle too early"
            accepted += dut.command__valid.value == 1 and dut.command__ready.value == 1
            done = self.done == len(self.order) and accepted == len(self.works)
            if dut.idle.value == 1 and done:
                break
            scale = sum_stat(int(dut.scale_addr.value)) if self.arch.row_sums else None
            await FallingEdge(dut.clk)
            if self.arch.row_sums:
                dut.scale_stat.value = scale
            dut.drain_data.value, dut.sum_data.value = drained, summed
            dut.residual__lo.value, dut.residual__hi.value = old
            dut.index__data.value = listed
            if self.arch.experts:
                dut.index__gate.value = self.gate_read
            self._drain_step()
            self._loader_step(progress)
            self._load_step(progress)
        else:
            raise AssertionError(f"stuck at {progress}, {self.done} of {len(self.order)} rows")
        assert not self.needs
        assert dict(self.cells) == dict(self.want.cells)
        assert dict(self.stats) == dict(self.want.stats)

    def _sample(self):
        """Outputs of this cycle; returns the answers of the memories in the next one."""
        dut = self.dut
        self.drain_reads.append(self.drain[int(dut.drain_addr.value)])
        self.drain_reads.popleft()
        self.released.popleft()
        read = bench.unpack(interfaces.DRAIN_PROGRESS, int(dut.drain_read.value))
        self.released.append((self._unwrap(read["tile"]), read["row"]))
        bank, row = divmod(int(dut.sum_addr.value), self.arch.max_rows)
        if dut.index__en.value == 1:
            at = int(dut.index__addr.value)
            self.list_read = self.entries[at % self.arch.index_entries]
            self.gate_read = self.gates[at % self.arch.index_entries]
        self.reads.append(self._read())
        old = self.reads.popleft() or self._noise()
        self._write()
        if dut.stat__valid.value == 1:
            fields = bench.unpack(interfaces.stat_write(self.arch), int(dut.stat__p.value))
            stat = fields["stat"]
            self.stats[fields["addr"]].append((stat["mean"], stat["shift"], stat["mantissa"]))
        return self.drain_reads[0], self.list_read, self.sums[bank][row], old

    def _unwrap(self, tile: int) -> int:
        """A global c tile from its low bits: near the one being drained."""
        near = self.drain_at[0]
        return near + (tile - near + 128) % 256 - 128

    def _noise(self) -> tuple[int, ...]:
        size = self.arch.lanes
        return tuple(int.from_bytes(self.random.bytes(size), "little") for _ in range(2))

    def _read(self) -> tuple[int, ...] | None:
        dut = self.dut
        if dut.residual__valid.value != 1 or dut.residual__ready.value != 1:
            return None
        load, element = self.needs.popleft()
        assert self.load_seq > load or self.load_words > element, "read before it was loaded"
        self.followed += self.load_seq == load
        words = [int(w[0]) for w in self.tokens.pair(np.array([int(dut.residual__addr.value)]))]
        # Bytes that are being written are undefined.
        being_written = {cell for cell, _ in self._writes()}
        at = int(dut.residual__piece.value) * self.arch.lanes
        return tuple(
            int.from_bytes(bytes(
                int(self.random.integers(256)) if word * self.arch.depth + i in being_written
                else int(self.tokens.bytes[word][i]) for i in range(at, at + self.arch.lanes)
            ), "little")
            for word in words
        )

    def _writes(self) -> list[tuple[int, int]]:
        """``(byte address, value)`` of this cycle's write."""
        dut, lanes, depth = self.dut, self.arch.lanes, self.arch.depth
        if dut.result__valid.value != 1:
            return []
        address, mask = int(dut.result__addr.value), int(dut.result__mask.value)
        assert mask.bit_count() == 1
        at = lanes * (mask.bit_length() - 1)
        wide = dut.result__wide.value == 1
        words = [int(w[0]) for w in self.tokens.pair(np.array([address]))] if wide else [address]
        return [
            (word * depth + lane, data >> (8 * lane) & 0xFF)
            for word, port in zip(words, ("lo", "hi"), strict=False)
            for data in [int(getattr(dut, f"result__{port}").value)]
            for lane in range(at, at + lanes)
        ]

    def _write(self) -> None:
        for cell, value in self._writes():
            self.tokens.bytes.reshape(-1)[cell] = value
            self.cells[cell].append(value)

    # Progress -------------------------------------------------------------------------------
    def _check_progress(self, progress) -> None:
        """Rows that are announced must be in memory before this cycle's writes."""
        index, row = self.finished(progress), progress["row"]
        tiles = sum(w.tiles for w in self.works[:index])
        if index == len(self.works):
            done = len(self.order)
            assert progress == {"seq": index % 256, "last_tile": 0, "row": 0,
                                "tiles_done": tiles % 256}
        else:
            work, op = self.works[index], self.works[index].op
            c = (progress["tiles_done"] - tiles) % 256
            assert c < work.tiles
            assert row < op.rows
            last = c == work.tiles - 1
            # Nothing is known of what has not written anything.
            assert progress["last_tile"] == last or (last and row == 0 and op.c_tiles == 1)
            done = sum(w.tiles * w.op.rows for w in self.works[:index]) + c * op.rows + row
        assert done >= self.done, "progress went back"
        for name, row in self.order[self.done : done]:
            found = [self.cells[cell][i : i + 1] for cell, i in row.cells]
            assert found == [[self.want.cells[cell][i]] for cell, i in row.cells], name
            if row.stat:
                where, i = row.stat
                assert self.stats[where][i : i + 1] == [self.want.stats[where][i]], name
        self.done = done


PACES = {
    "full": Pace(),
    "ragged": Pace(command=0.9, drain=0.4, param=0.5, residual=0.3, load=0.95, refill=11),
}


@cocotb.test()
@cocotb.parametrize(pace=["full", "ragged"])
async def random_programs(dut, pace):
    await bench.start(dut)
    works = random_program(bench.arch(), bench.rng(sorted(PACES).index(pace)), 70)
    await Surroundings(dut, works, PACES[pace]).run()


@cocotb.test()
async def follows_a_load(dut):
    """C tile by c tile, where there is more than one."""
    await bench.start(dut)
    arch = bench.arch()
    c_tiles = max(1, min(6, 4 * arch.depth // arch.width))
    works = [make(
        arch, bench.rng(5), rows=20, c_tiles=c_tiles, c_last=arch.width, output=Output.ADD16,
        load_distance=1, load_stream=True,
    ) for _ in range(2)]
    run = Surroundings(dut, works, Pace(load=0.9))
    await run.run()
    assert (run.followed > 0) == (c_tiles > 1)


@cocotb.test()
async def no_bubbles(dut):
    """Groups follow each other over rows, c tiles and instructions while drain rows are there."""
    await bench.start(dut)
    arch, random = bench.arch(), bench.rng(7)
    # Shorter c tiles would wait for their parameters: `param_slots` of them are in the pipeline.
    rows = 16 if arch.groups <= 4 else 8
    works = []
    for i in range(12):
        output = (Output.INT8, Output.INT16)[i % 2]
        works.append(make(
            arch, random, rows=rows, c_tiles=1 + i % 2, c_last=arch.width, output=output,
            stats=Stats.NORM * (output == Output.INT16), row_scale=RowScale(i % 3 == 0),
        ))
    run = Surroundings(dut, works, Pace(refill=1))
    await run.run()
    groups = sum(w.op.rows * w.op.c_tiles * arch.groups for w in works)
    assert len(run.busy_cycles) == groups
    assert run.busy_cycles[-1] - run.busy_cycles[0] == groups - 1
