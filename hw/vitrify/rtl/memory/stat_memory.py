"""The row statistics memory: mean and reciprocal deviation, a softmax maximum, or a sum."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces


class StatMemory(wiring.Component):
    """One entry for each row whose statistic is alive.

    Members
    -------
    write : :py:`In(pipe(stat_write(arch)))`
    addr : :py:`In(unsigned)`
    stat : :py:`Out(STAT)`
        Entry ``addr`` of one cycle before; undefined if it was being written.
    scale_addr, scale_stat : :py:`In(unsigned)`, :py:`Out(STAT)`
        The same for the epilogue, if the core has row sums.
    """

    write: wiring.PureInterface
    addr: Signal
    stat: data.View
    scale_addr: Signal
    scale_stat: data.View

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "write": In(interfaces.pipe(interfaces.stat_write(arch))),
            "addr": In(interfaces.index_bits(arch.stat_rows)),
            "stat": Out(interfaces.STAT),
            **({"scale_addr": In(interfaces.index_bits(arch.stat_rows)),
                "scale_stat": Out(interfaces.STAT)} if arch.row_sums else {}),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=interfaces.STAT, depth=self.arch.stat_rows, init=[]
        )
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write.valid), write.addr.eq(self.write.p.addr),
            write.data.eq(self.write.p.stat),
            read.addr.eq(self.addr), self.stat.eq(read.data),
        ]
        if self.arch.row_sums:
            scale = memory.read_port()
            m.d.comb += [scale.addr.eq(self.scale_addr), self.scale_stat.eq(scale.data)]
        return m
