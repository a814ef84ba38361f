"""Loader: fills the stationary tile, parameters, activation tables and gains."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import WITH_PARAMETERS, Stationary
from vitrify.rtl import interfaces
from vitrify.rtl.lib.skid import Skid

from .coded_words import CodedWords
from .tile_addresses import TileAddresses
from .tile_words import TileWords
from .tile_writer import TileWriter, tile_words

_SEQ = interfaces.SEQ_BITS
#: Cycles between the last word of a phase and the first one of the next.
_SETTLE = 2
_REQUEST = data.StructLayout({"addr": interfaces.ADDR_BITS, "wide": 1})


class _Phase(enum.Enum, shape=2):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
    GAIN = 0
    TABLE = 1
    PARAMS = 2
    TILE = 3


class Loader(wiring.Component):
    """Everything that stands still while rows stream past it.

    Takes the weight stream in its order (gains, table, and for every c tile parameters and
    tiles), or reads tiles from the token memory; one word a cycle (of STORED weights: two; of
    nibbles too, or a half, but where the array takes them as they are, one) with two cycles
    between tiles (and between other phases), running ahead by a tile
    (:class:`~vitrify.rtl.units.tile_writer.TileWriter`) as far as the docs' table of waits allows.

    Parameters
    ----------
    arch : ArchConfig
    swap_latency : int
        See :class:`~vitrify.rtl.units.tile_writer.TileWriter`.

    Members
    -------
    command : :py:`In(stream.Signature(loader_command(arch)))`
    weights : :py:`In(stream.Signature(8*K))`
        The weight streams of all MATMULs.
    read : :py:`Out(read_client(arch))`
    tile_write, param_write, table_write, gain_write : :py:`Out(pipe(…))`
    tile_ready, tile_take : :py:`Out(1)`, :py:`In(1)`
        As in :class:`~vitrify.rtl.units.fetch.Fetch`.
    epilogue : :py:`In(EPILOGUE_PROGRESS)`
    fetch : :py:`In(FETCH_PROGRESS)`
    mover : :py:`In(MOVER_PROGRESS)`
    busy, starved : :py:`Out(1)`
        Events: a word went to its place; the weight stream had no word.
    idle : :py:`Out(1)`
        No instruction is in here; its last tile may still wait to be taken.
    """

    command: stream.Interface
    weights: stream.Interface
    read: wiring.PureInterface
    tile_write: wiring.PureInterface
    param_write: wiring.PureInterface
    table_write: wiring.PureInterface
    gain_write: wiring.PureInterface
    tile_ready: Signal
    tile_take: Signal
    epilogue: data.View
    fetch: data.View
    mover: data.View
    busy: Signal
    starved: Signal
    idle: Signal

    def __init__(self, arch: ArchConfig, *, swap_latency: int) -> None:
        self.arch = arch
        self._command = interfaces.loader_command(arch)
        self.swap_latency = swap_latency
        super().__init__({
            "command": In(stream.Signature(self._command)),
            "weights": In(stream.Signature(unsigned(8 * arch.depth))),
            "read": Out(interfaces.read_client(arch)),
            "tile_write": Out(interfaces.pipe(interfaces.tile_write(arch))),
            "param_write": Out(interfaces.pipe(interfaces.param_write(arch))),
            "table_write": Out(interfaces.pipe(interfaces.table_write(arch))),
            "gain_write": Out(interfaces.pipe(interfaces.gain_write(arch))),
            "tile_ready": Out(1),
            "tile_take": In(1),
            "epilogue": In(interfaces.EPILOGUE_PROGRESS),
            "fetch": In(interfaces.FETCH_PROGRESS),
            "mover": In(interfaces.MOVER_PROGRESS),
            "busy": Out(1),
            "starved": Out(1),
            "idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._writer = TileWriter(self.arch, swap_latency=self.swap_latency)
        m.submodules.writer = self._writer
        wiring.connect(m, self._writer.tile_write, wiring.flipped(self.tile_write))
        m.d.comb += [
            self.tile_ready.eq(self._writer.tile_ready),
            self._writer.tile_take.eq(self.tile_take),
        ]
        # Between the loops and the memory's arbiter.
        m.submodules.requests = self._requests = Skid(_REQUEST)
        self._registers()
        self._loops(m)
        self._waits(m)
        self._step(m)
        self._sequence(m)
        self._reads(m)
        self._outputs(m)
        return m

    def _registers(self) -> None:
        arch = self.arch
        #: The MATMUL being loaded, with the number before its own and those of producer and load.
        self._active = Signal()
        self._op = Signal(data.StructLayout({
            **self._command.members,
            "previous": _SEQ, "producer": _SEQ, "load": _SEQ,
        }), reset_less=True)
        self._phase = Signal(_Phase)
        self._tile = Signal(_SEQ)                                # global c tile
        self._k = Signal(interfaces.matmul_bits("k_tiles"))
        self._c = Signal(interfaces.matmul_bits("c_tiles"))
        # Repetitions, and whether it is the last one.
        self._time = Signal(interfaces.pattern_bits("repeats"))
        self._last_time: Any = Signal() if arch.patterns else Const(1, 1)
        # Cycles since a phase began: in two of them its flags become those of the phase.
        self._settled = Signal(_SETTLE)
        self._weights, self._columns, self._stored = Signal(), Signal(), Signal()
        # The tile's words are nibbles of two columns; they, or pair words, bring both at once.
        self._splits = arch.nibbles and not arch.sees_nibbles
        self._nibbles: Any = Signal() if self._splits else Const(0, 1)
        self._pairs: Any = Signal() if arch.stored_weights else Const(0, 1)
        self._k_end, self._c_end, self._outer_end = Signal(), Signal(), Signal()
        # Word of the phase (lane group or column group), words left, and word within the group.
        outer = max(tile_words(arch), arch.max_dim_words, arch.table_words, arch.most_groups)
        self._outer, self._left = Signal(range(outer + 1)), Signal(range(outer + 1))
        self._inner = Signal(range(max(2, arch.param_words, arch.width // arch.depth)))
        self._inner_last, self._inner_end = Signal.like(self._inner), Signal()
        self._first = Signal()
        # Words may go: the phase has settled, and what it waits for is there.
        self._open = Signal()
        # They come from the stream; they are words of a tile.
        self._streams, self._to_tile = Signal(), Signal()
        # The word taken in this cycle, and whether it ends its phase.
        self._go, self._word_end = Signal(), Signal()
        # The second word of those that go to the buffer as one.
        self._second: Any = Const(0, 1)
        # The stream may not overtake tile words that come from the token memory.
        self._reading = Signal()

    def _loops(self, m: Module) -> None:
        """Counters: ``outer`` and ``inner`` words of a phase, k and c tiles; ends are registers."""
        op, arch = self._op, self.arch
        count, inner_last = Signal.like(self._left), Signal.like(self._inner)
        groups = max(1, arch.width // arch.depth)
        # C tiles in thirds have more columns, in fewer words.
        thirds: Any = op.nibbles if arch.nibble_thirds else Const(0, 1)
        with m.Switch(self._phase):
            with m.Case(_Phase.GAIN):
                m.d.comb += count.eq(op.gain_words if arch.patterns else op.k_tiles)
            with m.Case(_Phase.TABLE):
                m.d.comb += count.eq(arch.table_words)
            with m.Case(_Phase.PARAMS):
                groups_here = Mux(thirds, arch.most_groups, arch.groups)
                m.d.comb += [count.eq(groups_here), inner_last.eq(arch.param_words - 1)]
            with m.Case(_Phase.TILE):
                with m.If(self._columns):
                    m.d.comb += [count.eq(Mux(self._k_end, op.k_last, arch.depth)),
                                 inner_last.eq(groups - 1)]
                with m.Elif(self._pairs | thirds):
                    streamed, kept, pairs = arch.nibble_width // 2, *map(arch.tile_pairs, (1, 0))
                    m.d.comb += count.eq(Mux(thirds, Mux(self._pairs, kept, streamed), pairs))
                with m.Else():
                    # The stream has all columns; of the token memory only those that exist.
                    m.d.comb += count.eq(Mux(~self._weights & self._c_end, op.c_last, arch.width))
        nibbles = op.nibbles if self._splits else Const(0, 1)
        if self._splits:
            m.d.sync += self._nibbles.eq(nibbles)
        if arch.stored_weights:
            stored = op.stationary == Stationary.STORED
            m.d.sync += [self._stored.eq(stored), self._pairs.eq(stored | nibbles)]
        m.d.sync += [
            self._settled.eq(Cat(1, self._settled)),
            self._weights.eq(op.stationary == Stationary.WEIGHTS),
            self._columns.eq(op.stationary == Stationary.COLUMNS),
            self._k_end.eq(self._k + 1 == op.k_tiles), self._c_end.eq(self._c + 1 == op.c_tiles),
        ]
        if arch.patterns:
            m.d.sync += self._last_time.eq(self._time == op.repeats)
        with m.If(~self._settled[-1]):
            m.d.sync += [
                self._outer.eq(0), self._left.eq(count), self._outer_end.eq(count == 1),
                self._inner_last.eq(inner_last), self._inner_end.eq(inner_last == 0),
                self._first.eq(1),
            ]
        m.d.comb += self._word_end.eq(self._inner_end & self._outer_end)
        with m.If(self._go):
            m.d.sync += [
                self._inner.eq(self._inner + 1), self._first.eq(0),
                self._inner_end.eq(self._inner + 1 == self._inner_last),
            ]
            with m.If(self._inner_end):
                m.d.sync += [
                    self._inner.eq(0), self._inner_end.eq(self._inner_last == 0),
                    self._outer.eq(self._outer + 1),
                    self._left.eq(self._left - 1), self._outer_end.eq(self._left == 2),
                ]
            with m.If(self._word_end):
                m.d.sync += self._settled.eq(0)
        # Announce a tile with its first word, which is a cycle on its way.
        info, words = self._writer.info, self._left
        if arch.tile_quads:
            words = Mux(self._stored, words >> 1, words)
            self._second = self._stored & self._outer[0]
            m.d.sync += info.payload.quad.eq(self._stored)
        m.d.sync += [
            info.payload.words.eq(Mux(self._columns, words << (groups.bit_length() - 1), words)),
            info.payload.columns.eq(self._columns), info.payload.pair.eq(self._pairs),
            info.payload.part.eq(self._c),
            *([info.payload.nibbles.eq(thirds)] if arch.nibble_thirds else []),
            info.valid.eq(self._go & self._first & self._to_tile),
        ]

    def _waits(self, m: Module) -> None:
        """What is waited for stays true, so that it is looked at a cycle late."""
        op, clear = self._op, Signal()
        unfinished = (self.epilogue.seq - op.previous)[_SEQ - 1]   # MATMUL seq - 2
        fetching = (self.fetch.seq - op.previous)[_SEQ - 1]        # before MATMUL seq - 1
        produced = (self.epilogue.seq - op.producer)[:_SEQ].as_signed() > 0
        ahead = (self._tile - self.epilogue.tiles_done)[:_SEQ]
        loaded = (self.mover.seq - op.load)[:_SEQ].as_signed() > 0
        with m.Switch(self._phase):
            with m.Case(_Phase.GAIN):
                m.d.comb += clear.eq(~fetching)
            with m.Case(_Phase.TABLE):
                m.d.comb += clear.eq(~unfinished)
            with m.Case(_Phase.PARAMS):
                m.d.comb += clear.eq(ahead < self.arch.param_slots)
            with m.Case(_Phase.TILE):
                m.d.comb += clear.eq(Mux(
                    self._weights, ~self._reading,
                    Mux(self._stored, (op.load_distance == 0) | loaded,
                        (op.st_distance == 0) | produced),
                ))
        to_tile = self._phase == _Phase.TILE
        m.d.sync += [
            self._to_tile.eq(to_tile), self._streams.eq(~to_tile | self._weights),
            self._open.eq(self._settled[-2] & clear & ~(self._go & self._word_end)),
        ]

    def _step(self, m: Module) -> None:
        """Take a word of the stream, or ask the token memory for one."""
        self._from_stream, self._ask, self._half = Signal(), Signal(), Signal()
        # Places of the buffer that are neither full nor promised to a read: all that are left
        # but one, which a word may take while this is found out.
        arch, places = self.arch, self.arch.tile_buffer + 1
        room, some_room = Signal(range(places + 1), init=places), Signal()
        more: Any = Mux(self._streams, arch.tile_buffer - arch.streamed_ahead, 0)
        may, wants_stream = Signal(), Signal()
        m.d.comb += [
            # Without pairs a word of nibbles is looked at twice, for an even and an odd column.
            self._half.eq(self._nibbles & self._to_tile & ~self._pairs & ~self._outer[0]),
            may.eq(
                self._open
                & (~self._to_tile | (some_room & (self._writer.info.ready | ~self._first)))
            ),
            wants_stream.eq(may & self._streams),
            self.weights.ready.eq(wants_stream & ~self._half),
            self._from_stream.eq(wants_stream & self.weights.valid),
            self._ask.eq(may & ~self._streams & self._requests.i.ready),
            self._go.eq(self._from_stream | self._ask),
        ]
        uses = self._go & self._to_tile & ~self._second
        m.d.sync += [
            room.eq(room + self._writer.busy - uses), some_room.eq(room > 1 + more),
            self.starved.eq(wants_stream & ~self.weights.valid),
        ]

    def _sequence(self, m: Module) -> None:
        op = self._op
        command = self.command.payload
        after_table = Mux(self._weights | self._stored, _Phase.PARAMS, _Phase.TILE)
        with m.If(self._go & self._word_end), m.Switch(self._phase):
            with m.Case(_Phase.GAIN):
                m.d.sync += self._phase.eq(Mux(op.load_table, _Phase.TABLE, after_table))
            with m.Case(_Phase.TABLE):
                m.d.sync += self._phase.eq(after_table)
            with m.Case(_Phase.PARAMS):
                m.d.sync += self._phase.eq(_Phase.TILE)
                if self.arch.nibble_tiles > 1:
                    # First those of both c tiles of a pass.
                    with m.If(op.nibbles & ~self._c[0] & ~self._c_end):
                        m.d.sync += [self._phase.eq(_Phase.PARAMS), self._c.eq(self._c + 1),
                                     self._tile.eq(self._tile + 1)]
            with m.Case(_Phase.TILE):
                m.d.sync += self._k.eq(self._k + 1)
                with m.If(self._k_end):
                    m.d.sync += [
                        self._k.eq(0), self._c.eq(self._c + 1),
                        self._tile.eq(self._tile + 1), self._phase.eq(after_table),
                    ]
                    with m.If(self._c_end):
                        m.d.sync += [self._c.eq(0), self._active.eq(~self._last_time)]
                        if self.arch.patterns:
                            m.d.sync += self._time.eq(self._time + 1)
        m.d.comb += self.command.ready.eq(~self._active)
        with m.If(self.command.ready):
            m.d.sync += [
                self._active.eq(self.command.valid), self._settled.eq(0),
                *(op[name].eq(command[name]) for name in self._command.members),
                op.previous.eq(command.seq - 1),
                op.producer.eq(command.seq - command.st_distance),
                op.load.eq(command.load_seq - command.load_distance),
                self._c.eq(0), self._time.eq(0),
            ]
            with m.If(command.load_gain):
                m.d.sync += self._phase.eq(_Phase.GAIN)
            with m.Elif(command.load_table):
                m.d.sync += self._phase.eq(_Phase.TABLE)
            with m.Elif(command.stationary.matches(*WITH_PARAMETERS)):
                m.d.sync += self._phase.eq(_Phase.PARAMS)
            with m.Else():
                m.d.sync += self._phase.eq(_Phase.TILE)

    # Token memory -------------------------------------------------------------------------------
    def _reads(self, m: Module) -> None:
        arch, op = self.arch, self._op
        m.submodules.addresses = addresses = TileAddresses(arch)
        place = addresses.place
        m.d.comb += [
            addresses.begin.eq(self.command.ready),
            addresses.start.eq(self.command.payload.st_addr), addresses.ask.eq(self._ask),
            place.columns.eq(self._columns), place.stored.eq(self._stored),
            place.stride.eq(op.st_stride), place.inner.eq(self._inner), place.k.eq(self._k),
            place.c.eq(self._c), place.tile_ends.eq(self._word_end), place.k_end.eq(self._k_end),
            self._requests.i.valid.eq(self._ask),
            self._requests.i.payload.addr.eq(addresses.addr),
            self._requests.i.payload.wide.eq(self._stored),
        ]
        if arch.patterns:
            again = self._word_end & self._k_end & self._c_end & ~self._last_time
            m.d.comb += [place.step.eq(op.st_step), place.repeats.eq(again)]
        requests, on_way = self._requests, Signal(interfaces.READ_LATENCY)
        m.d.comb += [
            self.read.valid.eq(requests.o.valid), self.read.addr.eq(requests.o.payload.addr),
            self.read.wide.eq(requests.o.payload.wide),
            requests.o.ready.eq(self.read.ready),
            self._reading.eq(~requests.empty | on_way.any()),
        ]
        wide_on_way = Signal.like(on_way)
        m.d.sync += [
            on_way.eq(Cat(self.read.valid & self.read.ready, on_way)),
            wide_on_way.eq(Cat(self.read.wide, wide_on_way)),
        ]
        m.submodules.words = words = CodedWords(arch) if arch.trellis_codes else TileWords(arch)
        wiring.connect(m, words.word, self._writer.word)
        m.d.comb += [
            words.arrives.eq(on_way[-1]), words.stored.eq(wide_on_way[-1]),
            words.lo.eq(self.read.lo), words.hi.eq(self.read.hi),
            words.streams.eq(self._from_stream & self._to_tile),
            words.streamed.eq(self.weights.payload),
            words.nibbles.eq(self._nibbles), words.odd.eq(self._outer[0]),
            *([words.restart.eq(~self._settled[-1])] if isinstance(words, CodedWords) else []),
        ]

    # Parameters, tables, gains ------------------------------------------------------------------
    def _outputs(self, m: Module) -> None:
        arch, op = self.arch, self._op
        word = Signal(8 * arch.depth, reset_less=True)
        m.d.sync += word.eq(self.weights.payload)
        pipes = {
            _Phase.GAIN: self.gain_write,
            _Phase.TABLE: self.table_write,
            _Phase.PARAMS: self.param_write,
        }
        for phase, pipe in pipes.items():
            m.d.sync += pipe.valid.eq(self._from_stream & (self._phase == phase))
            m.d.comb += pipe.p.data.eq(word)
        m.d.sync += [
            self.gain_write.p.slot.eq(op.gain_slot), self.gain_write.p.word.eq(self._outer),
            self.table_write.p.slot.eq(op.table_slot), self.table_write.p.word.eq(self._outer),
            self.param_write.p.slot.eq(self._tile), self.param_write.p.group.eq(self._outer),
            self.param_write.p.word.eq(self._inner),
        ]
        written = Cat(pipe.valid for pipe in pipes.values()).any() | self._writer.busy
        m.d.comb += [self.busy.eq(written), self.idle.eq(~self._active)]
