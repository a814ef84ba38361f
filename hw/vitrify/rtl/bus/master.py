"""The core's AXI4 master: instruction, weight and load readers, one writer."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import memory_read, memory_write, pipe

from .axi import axi4, connect_flat
from .read_master import BUS_ERROR, ReadMaster
from .window import WINDOW
from .write_master import WriteMaster


class AxiMaster(wiring.Component):
    """:class:`ReadMaster` and :class:`WriteMaster` behind one port.

    Parameters
    ----------
    arch : ArchConfig
        ``weight_fifo_words`` is the depth of the weight FIFO, ``burst_beats`` the longest burst,
        ``outstanding`` the bursts in flight in each direction.

    Members
    -------
    m_axi : Out(axi4(arch))
    instructions, weights, loads : In(memory_read(arch))
    stores : In(memory_write(arch))
    stop : In(1)
        Begin no new burst.
    idle : Out(1)
        Nothing is in flight; stays so while ``stop`` is set.
    read_beat, write_beat : Out(1)
        Pulse for every beat.
    read_error, write_error : Out(pipe(BUS_ERROR))
        SLVERR or DECERR.
    read_window, write_window : In(WINDOW)
    read_refused, write_refused : Out(pipe(BUS_ERROR))
        A burst outside its window, which does not reach the bus.
    """

    m_axi: Any
    instructions: Any
    weights: Any
    loads: Any
    stores: Any
    stop: Signal
    idle: Signal
    read_beat: Signal
    write_beat: Signal
    read_error: Any
    write_error: Any
    read_window: Any
    write_window: Any
    read_refused: Any
    write_refused: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "m_axi": Out(axi4(arch)),
            "instructions": In(memory_read(arch)),
            "weights": In(memory_read(arch)),
            "loads": In(memory_read(arch)),
            "stores": In(memory_write(arch)),
            "stop": In(1), "idle": Out(1),
            "read_beat": Out(1), "write_beat": Out(1),
            "read_error": Out(pipe(BUS_ERROR)), "write_error": Out(pipe(BUS_ERROR)),
            "read_window": In(WINDOW), "write_window": In(WINDOW),
            "read_refused": Out(pipe(BUS_ERROR)), "write_refused": Out(pipe(BUS_ERROR)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch = self.arch
        clients = dict(arch.fifo_words)
        stored = clients.pop("stores")
        m.submodules.read = read = ReadMaster(arch, clients=clients)
        m.submodules.write = write = WriteMaster(arch, fifo_words=stored)
        for name in read.clients:
            connect(m, flipped(getattr(self, name)), getattr(read, name))
        connect(m, flipped(self.stores), write.client)
        connect_flat(m, self.m_axi, "", read.axi)
        connect_flat(m, self.m_axi, "", write.axi)
        for kind, half in (("read", read), ("write", write)):
            connect(m, half.error, flipped(getattr(self, f"{kind}_error")))
            connect(m, half.refused, flipped(getattr(self, f"{kind}_refused")))
            m.d.comb += half.window.eq(getattr(self, f"{kind}_window"))
        m.d.comb += [
            read.stop.eq(self.stop), write.stop.eq(self.stop),
            self.idle.eq(read.idle & write.idle),
            self.read_beat.eq(read.beat), self.write_beat.eq(write.beat),
        ]
        return m
