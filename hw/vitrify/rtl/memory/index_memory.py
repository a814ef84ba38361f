"""The row-index memory: lists of row numbers for gathered reads and scattered writes."""

from __future__ import annotations

from typing import Any

from amaranth import Module, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces

#: Bits of an entry.
ENTRY_BITS = 8 * formats.INDEX_BYTES


def index_write(arch: ArchConfig) -> data.StructLayout:
    """One entry of the row-index memory."""
    return data.StructLayout(
        {"addr": interfaces.index_bits(arch.index_entries), "data": ENTRY_BITS}
    )


def index_read(arch: ArchConfig) -> wiring.Signature:
    """Row-index read, seen from the reader: ``data`` one cycle after ``en``, then held."""
    return wiring.Signature({
        "en": Out(1), "addr": Out(interfaces.index_bits(arch.index_entries)),
        "data": In(ENTRY_BITS),
    })


class IndexMemory(wiring.Component):
    """Two copies of the lists, one for each reader, so that both read every cycle.

    Members
    -------
    write : :py:`In(pipe(index_write(arch)))`
    fetch, epilogue : :py:`In(index_read(arch))`
    """

    write: wiring.PureInterface
    fetch: wiring.PureInterface
    epilogue: wiring.PureInterface

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "write": In(interfaces.pipe(index_write(arch))),
            "fetch": In(index_read(arch)),
            "epilogue": In(index_read(arch)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        for name in ("fetch", "epilogue"):
            client = getattr(self, name)
            memory = Memory(shape=unsigned(ENTRY_BITS), depth=self.arch.index_entries, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(self.write.valid), write.addr.eq(self.write.p.addr),
                write.data.eq(self.write.p.data),
                read.en.eq(client.en), read.addr.eq(client.addr), client.data.eq(read.data),
            ]
        return m
