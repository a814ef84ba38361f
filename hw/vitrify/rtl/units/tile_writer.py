"""Tile writer: one prefetched stationary tile, and its way into the shadow tile."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Shortest buffer: a read of the token memory is several cycles on its way.
_LEAST_BUFFER = 16
#: Tiles that are announced while another is written.
_ANNOUNCED = 2
#: Cycles from taking a word out of the buffer to its ``tile_write``.
_WRITE_DELAY = 2
#: Cycles from deciding that a tile is ready to the first row that may use it.
_READY_DELAY = 2
#: Cycles from the issue of a row to the wait that it starts.
_TAKE_DELAY = 2


def tile_words(arch: ArchConfig) -> int:
    """Most words of a tile: C columns, or K depth positions of C/K words."""
    return max(arch.width, arch.depth)


def buffer_words(arch: ArchConfig) -> int:
    """Words that the buffer holds at least: a tile."""
    return max(tile_words(arch), _LEAST_BUFFER)


def tile_info(arch: ArchConfig) -> data.StructLayout:
    """A tile to come: ``words`` words; ``part``: which C bytes of its words, if C < K."""
    return data.StructLayout({
        "words": interfaces.index_bits(tile_words(arch) + 1),
        "columns": 1,
        "part": interfaces.index_bits(max(1, arch.depth // arch.width)),
    })


class TileWriter(wiring.Component):
    """Buffer of one tile, written to the shadow tile as soon as that is free, a word a cycle.

    Everything from the issue of a row to the swap has a fixed latency, so the writer needs no
    answer from the matrix unit: it knows when the shadow becomes free, and it calls a tile ready
    as soon as all its words are at hand and will be in place in time.  So a pass may follow
    the previous one after as many cycles as the tile has words, and not before ``swap_latency``.

    Parameters
    ----------
    arch : ArchConfig
    swap_latency : int
        A ``tile_write`` in a cycle ``swap_latency`` or more after the issue of a row with ``swap``
        belongs to the tile after that swap; an earlier one to the tile that the swap makes active.

    Members
    -------
    info : :py:`In(stream.Signature(tile_info(arch)))`
        With the first word of each tile or before it.
    word : :py:`In(stream.Signature(8*K))`
        Words in the order of ``tile_write``.
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
            "word": In(stream.Signature(unsigned(8 * arch.depth))),
            "tile_write": Out(interfaces.pipe(interfaces.tile_write(arch))),
            "tile_ready": Out(1),
            "tile_take": In(1),
            "busy": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch = self.arch
        layout = tile_info(arch)
        # One entry is the FIFO's output register: the memory is a power of two.
        m.submodules.buffer = buffer = SyncFIFOBuffered(
            width=8 * arch.depth, depth=buffer_words(arch) + 1
        )
        m.submodules.announced = announced = SyncFIFO(width=layout.size, depth=_ANNOUNCED)
        wiring.connect(m, wiring.flipped(self.word), buffer.w_stream)
        m.d.comb += [
            announced.w_data.eq(self.info.payload),
            announced.w_en.eq(self.info.valid),
            self.info.ready.eq(announced.w_rdy),
        ]

        tile, left = Signal(layout), Signal(layout["words"].width)  # left: 0 between tiles
        wait = Signal(range(self.swap_latency))                     # until the shadow is free
        take_word, take_info = Signal(), Signal()
        promised = Signal()                                         # tile was called ready
        m.d.comb += [
            # A promised tile goes on, whether it is taken or not; the next one waits for the swap.
            take_word.eq(
                (left != 0) & (promised | (~self.tile_ready & (wait == 0))) & buffer.r_rdy
            ),
            take_info.eq(announced.r_rdy & ((left == 0) | (take_word & (left == 1)))),
            buffer.r_en.eq(take_word),
            announced.r_en.eq(take_info),
        ]
        with m.If(take_word):
            m.d.sync += left.eq(left - 1)
        with m.If(take_info):
            m.d.sync += [
                tile.eq(announced.r_data), left.eq(layout(announced.r_data).words),
                promised.eq(0),
            ]

        # The last word leaves in ``left - 1`` cycles, if the buffer has them all.
        in_time = self.swap_latency - _WRITE_DELAY + _READY_DELAY
        ready = Signal()
        m.d.comb += ready.eq(
            take_word & ~promised & (left <= in_time) & (buffer.level >= left)
        )
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(self.tile_take):
            m.d.sync += [
                self.tile_ready.eq(0),
                wait.eq(self.swap_latency - _WRITE_DELAY - _TAKE_DELAY),
            ]
        with m.If(ready):
            m.d.sync += self.tile_ready.eq(1)
            with m.If(~take_info):
                m.d.sync += promised.eq(1)
        m.d.sync += self.busy.eq(take_word)
        self._write(m, tile, take_word, take_info, buffer.r_data)
        return m

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
            read.data.eq(word),
            out.valid.eq(read_valid), out.p.eq(read),
        ]
        if arch.width < arch.depth:
            with m.If(read.columns):
                m.d.sync += out.p.data.eq(read.data.word_select(part, 8 * arch.width))
