"""Tile writer: one prefetched stationary tile, and its way into the shadow tile."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Tiles that are announced while another is written.
_ANNOUNCED = 8
#: The same where tiles of four columns a word wait; a LUT RAM has as many.
_MANY_ANNOUNCED = 64
#: Cycles from taking a word out of the buffer to its ``tile_write``.
_WRITE_DELAY = 2
#: Cycles from deciding that a tile is ready to the first row that may use it.
_READY_DELAY = 2
#: Cycles from the issue of a row to the wait that it starts.
_TAKE_DELAY = 2


def tile_words(arch: ArchConfig) -> int:
    """Most words of a tile: C columns, or K depth positions of C/K words."""
    return max(arch.width, arch.depth)


def announced(arch: ArchConfig) -> int:
    """Tiles that are announced while another is written."""
    if not arch.tile_quads:
        return _ANNOUNCED
    return max(_ANNOUNCED, min(_MANY_ANNOUNCED, 4 * arch.tile_buffer // arch.width))


def tile_info(arch: ArchConfig) -> data.StructLayout:
    """A tile to come: ``words`` words; ``part``: which C bytes of its words, if C < K.

    The rest as in :func:`~vitrify.rtl.interfaces.tile_write`.
    """
    return data.StructLayout({
        "words": interfaces.index_bits(tile_words(arch) + 1),
        "columns": 1, "pair": 1,
        **({"quad": 1} if arch.tile_quads else {}),
        **({"nibbles": 1} if arch.nibble_thirds else {}),
        "part": interfaces.index_bits(max(1, arch.depth // arch.width)),
    })


class TileBuffer(SyncFIFOBuffered):
    """Words of tiles that wait, in block RAM if the architecture says so."""

    def __init__(self, arch: ArchConfig) -> None:
        # One entry is the output register: the memory is a power of two.
        super().__init__(width=arch.tile_bits, depth=arch.tile_buffer + 1)
        self._in_blocks = arch.tiles_in_blocks

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        if self._in_blocks:
            m.submodules.storage.attrs["ram_style"] = "block"
        return m


class TileWriter(wiring.Component):
    """Buffer of tiles, written to the shadow tile as soon as that is free, a word a cycle.

    Everything from the issue of a row to the swap has a fixed latency, so the writer needs no
    answer from the matrix unit: it knows when the shadow becomes free, and it calls a tile ready
    as soon as all its words are at hand and will be in place in time.  So a pass may follow
    the previous one after as many cycles as the tile has words, even before the tile of the
    previous pass is active.

    Parameters
    ----------
    arch : ArchConfig
    swap_latency : int
        A ``tile_write`` in a cycle ``swap_latency`` or more after the issue of a row with ``swap``
        belongs to the tile after that swap; an earlier one to the tile that the swap makes active.

    Members
    -------
    info : :py:`In(stream.Signature(tile_info(arch)))`
        Before the second word of each tile; every third cycle at most: ``ready`` looks a cycle
        back, and whoever looked may come a cycle later.
    word : :py:`In(stream.Signature(arch.tile_bits))`
        Words in the order of ``tile_write``: its ``data``, and above it its ``high``, and ``more``.
    tile_write : :py:`Out(pipe(tile_write(arch)))`
    tile_ready, tile_take : :py:`Out(1)`, :py:`In(1)`
        As in :class:`~vitrify.rtl.units.fetch.Fetch`.
    busy : :py:`Out(1)`
        Event: a word left the buffer.
    """

    info: stream.Interface
    word: stream.Interface
    tile_write: wiring.PureInterface
    tile_ready: Signal
    tile_take: Signal
    busy: Signal

    def __init__(self, arch: ArchConfig, *, swap_latency: int) -> None:
        least = _WRITE_DELAY + _TAKE_DELAY
        if swap_latency < least:
            raise ValueError(f"swap_latency must be at least {least}, not {swap_latency!r}")
        self.arch = arch
        self.swap_latency = swap_latency
        super().__init__({
            "info": In(stream.Signature(tile_info(arch))),
            "word": In(stream.Signature(unsigned(arch.tile_bits))),
            "tile_write": Out(interfaces.pipe(interfaces.tile_write(arch))),
            "tile_ready": Out(1),
            "tile_take": In(1),
            "busy": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch = self.arch
        layout = tile_info(arch)
        m.submodules.buffer = buffer = TileBuffer(arch)
        wiring.connect(m, wiring.flipped(self.word), buffer.w_stream)
        # One list of tiles to write, one of tiles to call ready.
        to_write = SyncFIFO(width=layout.size, depth=announced(arch))
        to_promise = SyncFIFO(width=layout["words"].width, depth=announced(arch))
        m.submodules += [to_write, to_promise]
        m.d.sync += self.info.ready.eq(to_write.w_rdy & to_promise.w_rdy)
        m.d.comb += [
            to_write.w_data.eq(self.info.payload),
            to_promise.w_data.eq(self.info.payload.words),
            to_write.w_en.eq(self.info.valid & self.info.ready),
            to_promise.w_en.eq(self.info.valid & self.info.ready),
        ]
        take_word = self._next_word(m, to_write, buffer)
        self._promise(m, to_promise, buffer, take_word)
        m.d.sync += self.busy.eq(take_word)
        return m

    def _next_word(self, m: Module, tiles: SyncFIFO, buffer: SyncFIFOBuffered) -> Value:
        """Words leave the buffer, a tile for every swap; returns the strobe."""
        layout = tile_info(self.arch)
        tile, left = Signal(layout), Signal(layout["words"].width)  # left: 0 between tiles
        begun = Signal()
        take_word, take_info = Signal(), Signal()
        # Tiles that may begin: one, and one more for each swap.
        swap = self.tile_take
        for stage in range(self.swap_latency - _WRITE_DELAY - _TAKE_DELAY):
            later = Signal(name=f"swap_{stage}")
            m.d.sync += later.eq(swap)
            swap = later
        free = Signal(range(_ANNOUNCED), init=1)
        m.d.comb += [
            take_word.eq((left != 0) & (begun | (free != 0)) & buffer.r_rdy),
            take_info.eq(tiles.r_rdy & ((left == 0) | (take_word & (left == 1)))),
            buffer.r_en.eq(take_word),
            tiles.r_en.eq(take_info),
        ]
        m.d.sync += free.eq(free + swap - (take_word & ~begun))
        with m.If(take_word):
            m.d.sync += [left.eq(left - 1), begun.eq(1)]
        with m.If(take_info):
            m.d.sync += [
                tile.eq(tiles.r_data), left.eq(layout(tiles.r_data).words), begun.eq(0),
            ]
        self._write(m, tile, take_word, take_info, buffer.r_data)
        return take_word

    def _promise(
        self, m: Module, tiles: SyncFIFO, buffer: SyncFIFOBuffered, take_word: Value
    ) -> None:
        """Call the next tile ready when its last word will leave in time.

        It must leave ``swap_latency + _READY_DELAY - _WRITE_DELAY`` cycles from now at the latest:
        a row that is issued after ``_READY_DELAY`` cycles then finds it.  Its first word leaves
        ``swap_latency - _WRITE_DELAY`` cycles after the issue of the row that took the previous
        tile.
        """
        in_time = self.swap_latency - _WRITE_DELAY + _READY_DELAY
        begins = self.swap_latency - _WRITE_DELAY
        words, known = Signal(tile_info(self.arch)["words"].width), Signal()
        # Words of this tile and of those before it that are still to leave.
        due = Signal(range(self.arch.tile_buffer + 2 * tile_words(self.arch)))
        # Cycles since the previous tile was taken.
        since = Signal(range(begins + 1), init=begins)
        ready, load = Signal(), Signal()
        m.d.comb += [
            load.eq(tiles.r_rdy & ~known),
            tiles.r_en.eq(load),
            ready.eq(
                known & ~self.tile_ready & buffer.r_rdy & (buffer.level >= due)
                & Mux(since == begins, due <= in_time, words <= since + _READY_DELAY)
            ),
        ]
        m.d.sync += due.eq(due + Mux(load, tiles.r_data, 0) - take_word)
        with m.If(load):
            m.d.sync += [words.eq(tiles.r_data), known.eq(1)]
        with m.If(since != begins):
            m.d.sync += since.eq(since + 1)
        with m.If(self.tile_take):
            m.d.sync += [self.tile_ready.eq(0), since.eq(_TAKE_DELAY)]
        with m.If(ready):
            m.d.sync += [self.tile_ready.eq(1), known.eq(0)]

    def _write(
        self, m: Module, tile: data.View, take_word: Value, take_info: Value, word: Value
    ) -> None:
        arch = self.arch
        layout = interfaces.tile_write(arch)
        last_group = max(1, arch.width // arch.depth) - 1
        index = Signal(layout["index"].width)
        group = Signal(layout["group"].width)
        with m.If(take_word):
            with m.If(tile.columns & (group != last_group)):
                m.d.sync += group.eq(group + 1)
            with m.Else():
                m.d.sync += [group.eq(0), index.eq(index + 1)]
        with m.If(take_info):
            m.d.sync += [group.eq(0), index.eq(0)]

        read = Signal(layout, reset_less=True)
        read_valid, part = Signal(), Signal.like(tile.part, reset_less=True)
        out = self.tile_write
        m.d.sync += [
            read_valid.eq(take_word), part.eq(tile.part),
            read.columns.eq(tile.columns), read.index.eq(index), read.group.eq(group),
            read.data.eq(word[: 8 * arch.depth]),
            out.valid.eq(read_valid), out.p.eq(read),
        ]
        if arch.stored_weights:
            m.d.sync += [read.pair.eq(tile.pair), read.high.eq(word.word_select(1, 8 * arch.depth))]
        if arch.tile_quads:
            m.d.sync += [read.quad.eq(tile.quad), read.more.eq(word[16 * arch.depth :])]
        if arch.nibble_thirds:
            m.d.sync += read.nibbles.eq(tile.nibbles)
        if arch.width < arch.depth:
            with m.If(read.columns):
                m.d.sync += out.p.data.eq(read.data.word_select(part, 8 * arch.width))
