"""Addresses of the stationary tiles that lie in the token memory."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Where the loader is: in the tensor, in its loops, and which of their ends the word is.
PLACE = data.StructLayout({
    "columns": 1, "stored": 1,          # of the stationary source; neither: ROWS
    "stride": interfaces.matmul_bits("st_stride"),
    "step": interfaces.ADDR_BITS,       # to the tensor of the next repetition
    "inner": 8, "k": interfaces.matmul_bits("k_tiles"), "c": interfaces.matmul_bits("c_tiles"),
    "tile_ends": 1, "k_end": 1,
    "repeats": 1,                       # this word ends a repetition, and another follows
})


class TileAddresses(wiring.Component):
    """By addition only.

    ``token`` is the word address of the token row; to it comes the word within the row: the k tile
    (ROWS), or the c tile's first word and the column group (COLUMNS).  STORED: every pair word
    follows the one before.

    Members
    -------
    begin, start : :py:`In(1)`, :py:`In(ADDR_BITS)`
        A MATMUL comes; address of its tensor.
    place : :py:`In(PLACE)`
    ask : :py:`In(1)`
        The word is asked for.
    addr : :py:`Out(ADDR_BITS)`
    """

    begin: Signal
    start: Signal
    place: Any
    ask: Signal
    addr: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "begin": In(1), "start": In(interfaces.ADDR_BITS), "place": In(PLACE), "ask": In(1),
            "addr": Out(unsigned(interfaces.ADDR_BITS)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch, place = self.arch, self.place
        token, base = Signal(interfaces.ADDR_BITS), Signal(interfaces.ADDR_BITS)
        # COLUMNS: word C*c / K + inner, with inner below C / K.
        if arch.width >= arch.depth:
            group_bits = (arch.width // arch.depth).bit_length() - 1
            column_word = Cat(place.inner[:group_bits], place.c)
            row_end = Mux(place.columns, place.inner[:group_bits].all(), 1)
        else:
            column_word = place.c >> ((arch.depth // arch.width).bit_length() - 1)
            row_end = Const(1)
        following = Signal(interfaces.ADDR_BITS)
        m.d.comb += [
            following.eq(token + Mux(place.stored, 1, place.stride)),
            self.addr.eq(
                token + Mux(place.columns, column_word, Mux(place.stored, 0, place.k))
            ),
        ]
        with m.If(self.ask):
            with m.If(row_end):
                m.d.sync += token.eq(following)
            with m.If(place.tile_ends & ~place.stored):
                # ROWS: the same columns again for the next k tile.  COLUMNS: the depth goes on in
                # the next k tile, and begins again for the next c tile.
                with m.If(place.columns == place.k_end):
                    m.d.sync += token.eq(base)
                with m.Elif(~place.columns):
                    m.d.sync += base.eq(following)
        if arch.patterns:
            first, again = Signal(interfaces.ADDR_BITS), Signal(interfaces.ADDR_BITS)
            m.d.sync += again.eq(first + place.step)
            with m.If(self.ask & place.repeats):
                m.d.sync += [first.eq(again), token.eq(again), base.eq(again)]
            with m.If(self.begin):
                m.d.sync += first.eq(self.start)
        with m.If(self.begin):
            m.d.sync += [token.eq(self.start), base.eq(self.start)]
        return m
