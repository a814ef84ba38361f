"""Activation tables: two, with a copy for every lane."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Tables that the memory holds.
SLOTS = 2


class TableMemory(wiring.Component):
    """``SLOTS`` tables of 256 signed bytes; every lane looks up a byte a cycle.

    A lane's copy is one byte wide, so that it needs one small RAM block and no selection behind
    it.  Arriving words of K bytes wait in a queue that holds all tables, and are written byte by
    byte; ``ready`` says when a table is complete.

    Members
    -------
    write : :py:`In(pipe(table_write(arch)))`
        Every cycle if need be; a table is not written again before it was ready and used.
    ready : :py:`Out(SLOTS)`
        No byte of the table is waiting to be written.
    at : :py:`In(ArrayLayout(9, E))`
        Entry, and the slot above it.
    value : :py:`Out(ArrayLayout(8, E))`
        :attr:`LATENCY` cycles later.
    """

    #: Cycles from the entry's number to its value.
    LATENCY = 1

    write: wiring.PureInterface
    ready: Signal
    at: data.View
    value: data.View

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._address_bits = exact_log2(SLOTS * formats.TABLE_ENTRIES)
        super().__init__({
            "write": In(interfaces.pipe(interfaces.table_write(arch))),
            "ready": Out(SLOTS),
            "at": In(data.ArrayLayout(self._address_bits, arch.lanes)),
            "value": Out(data.ArrayLayout(8, arch.lanes)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        depth, words = self.arch.depth, self.arch.table_words
        layout = interfaces.table_write(self.arch)
        m.submodules.queue = queue = SyncFIFOBuffered(
            width=layout.size, depth=SLOTS * words
        )
        m.d.comb += [queue.w_en.eq(self.write.valid), queue.w_data.eq(self.write.p)]

        word = Signal(layout, reset_less=True)
        byte, busy, done = Signal(range(depth)), Signal(), Signal()
        m.d.comb += [
            done.eq(busy & (byte == depth - 1)),
            queue.r_en.eq(~busy | done),
        ]
        with m.If(busy):
            m.d.sync += [byte.eq(byte + 1), word.data.eq(word.data >> 8)]
        with m.If(queue.r_en):
            m.d.sync += [busy.eq(queue.r_rdy), word.eq(queue.r_data), byte.eq(0)]

        address = Cat(byte, word.word[: exact_log2(words)], word.slot)
        values = []
        for lane in range(self.arch.lanes):
            copy = Memory(shape=unsigned(8), depth=SLOTS * formats.TABLE_ENTRIES, init=[])
            m.submodules[f"copy{lane}"] = copy
            put, get = copy.write_port(), copy.read_port()
            m.d.comb += [
                put.en.eq(busy), put.addr.eq(address), put.data.eq(word.data[:8]),
                get.en.eq(Const(1)), get.addr.eq(self.at[lane]),
            ]
            values.append(get.data)
        m.d.comb += self.value.eq(Cat(*values))

        for slot in range(SLOTS):
            waiting = Signal(range(SLOTS * words + 1), name=f"waiting{slot}")
            enters = self.write.valid & (self.write.p.slot == slot)
            leaves = done & (word.slot == slot)
            m.d.sync += [
                waiting.eq(waiting + enters - leaves),
                self.ready[slot].eq((waiting == 0) & ~enters),
            ]
        return m
