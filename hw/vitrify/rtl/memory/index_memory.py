"""The row-index memory: lists of row numbers for gathered reads and scattered writes."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, unsigned
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


def gated_read(arch: ArchConfig) -> wiring.Signature:
    """As :func:`index_read`, with the gate beside the entry if the core has experts."""
    members = dict(index_read(arch).members)
    return wiring.Signature(members | {"gate": In(interfaces.GATE)} if arch.experts else members)


def queue_write(arch: ArchConfig) -> wiring.Signature:
    """One entry of an expert's queue, seen from the writer; taken with ``valid & ready``."""
    return wiring.Signature({
        "valid": Out(1), "addr": Out(interfaces.index_bits(arch.index_entries)),
        "row": Out(ENTRY_BITS), "gate": Out(interfaces.GATE), "ready": In(1),
    })


class IndexMemory(wiring.Component):
    """Two copies of the lists, one for each reader, so that both read every cycle.

    A core with experts has a gate beside every entry, which the router alone writes.

    Members
    -------
    write : :py:`In(pipe(index_write(arch)))`
    queue : :py:`In(queue_write(arch))`
        If the core has experts; waits while ``write`` is valid.
    fetch, epilogue : :py:`In(index_read(arch))`, :py:`In(gated_read(arch))`
    """

    write: wiring.PureInterface
    queue: wiring.PureInterface
    fetch: wiring.PureInterface
    epilogue: wiring.PureInterface

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "write": In(interfaces.pipe(index_write(arch))),
            **({"queue": In(queue_write(arch))} if arch.experts else {}),
            "fetch": In(index_read(arch)),
            "epilogue": In(gated_read(arch)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        enable, address, entry = self.write.valid, self.write.p.addr, self.write.p.data
        if self.arch.experts:
            queue, loads = self.queue, self.write.valid
            m.d.comb += queue.ready.eq(~loads)
            enable, address = loads | queue.valid, Mux(loads, address, queue.addr)
            entry = Mux(loads, entry, queue.row)
            self._gates(m)
        for name in ("fetch", "epilogue"):
            client = getattr(self, name)
            memory = Memory(shape=unsigned(ENTRY_BITS), depth=self.arch.index_entries, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(enable), write.addr.eq(address), write.data.eq(entry),
                read.en.eq(client.en), read.addr.eq(client.addr), client.data.eq(read.data),
            ]
        return m

    def _gates(self, m: Module) -> None:
        memory = Memory(shape=interfaces.GATE, depth=self.arch.index_entries, init=[])
        m.submodules.gates = memory
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.queue.valid & self.queue.ready), write.addr.eq(self.queue.addr),
            write.data.eq(self.queue.gate),
            read.en.eq(self.epilogue.en), read.addr.eq(self.epilogue.addr),
            self.epilogue.gate.eq(read.data),
        ]
