"""Accumulators: partial sums in the work memory, finished rows in the drain memory."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import DRAIN_PROGRESS, MIN_PASS, index_bits, pipe
from vitrify.rtl.lib.shared import place

from .layout import drain_layout, sums_layout
from .sums import PartialSums


class Accumulator(wiring.Component):
    """Adds the dot products of a row over the k tiles.

    A row tagged ``first`` starts from zero; a row tagged ``last`` goes to the drain memory,
    every other to the work memory.  One row a cycle; the same row may recur after
    :attr:`recurrence` cycles (the fetch keeps ``MIN_PASS``).

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    i : In(pipe(sums_layout))
        Dot products, rows of a tile in order.
    drain_addr : In(row)
        Row of the drain memory to read.
    drain_data : Out(drain_layout(arch, C))
        Its content, :attr:`drain_latency` cycles later.
    drain_written : Out(DRAIN_PROGRESS)
        c tile in progress and rows of it that a read started in this cycle finds written.
    """

    i: wiring.PureInterface
    drain_addr: Signal
    drain_data: data.View
    drain_written: data.View

    #: Cycles from ``drain_addr`` to ``drain_data``.
    drain_latency = 2
    #: Cycles after which a row may come again.
    recurrence = 4
    #: Cycles from ``i`` to ``drain_written`` counting the row.
    latency = 4

    def __init__(self, arch: ArchConfig) -> None:
        assert self.recurrence <= MIN_PASS
        self._arch = arch
        super().__init__({
            "i": In(pipe(sums_layout(arch))),
            "drain_addr": In(index_bits(arch.max_rows)),
            "drain_data": Out(drain_layout(arch, arch.width)),
            "drain_written": Out(DRAIN_PROGRESS),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        arch, tag_layout = self._arch, self.i.p.tag.shape()
        tags, valid = [self.i.p.tag], self.i.valid
        for stage in (1, 2, 3):
            tag = Signal(tag_layout, name=f"tag_{stage}", reset_less=True)
            later = Signal(name=f"valid_{stage}")
            m.d.sync += [tag.eq(tags[-1]), later.eq(valid)]
            tags.append(tag)
            valid = later
        done = tags[-1]
        parts = place(
            m, platform, lambda: PartialSums(arch), name=PartialSums.module_name(arch),
            count=arch.width // arch.sum_columns,
        )
        count = arch.sums(arch.sum_columns)
        for i, part in enumerate(parts):
            for c in range(count):
                m.d.comb += [
                    part.sums[c].eq(self.i.p.data[i * count + c]),
                    self.drain_data[i * count + c].eq(part.drain[c]),
                ]
            m.d.comb += [
                part.row.eq(self.i.p.tag.row), part.first.eq(tags[2].first),
                part.write_row.eq(done.row), part.drain_row.eq(self.drain_addr),
                part.write_work.eq(valid & ~done.last), part.write_drain.eq(valid & done.last),
            ]
        progress = self.drain_written
        with m.If(valid & done.last):
            m.d.sync += progress.row.eq(done.row + 1)
            with m.If(done.final):
                tiles = 1 + done.paired if arch.nibble_tiles > 1 else 1
                m.d.sync += [progress.tile.eq(progress.tile + tiles), progress.row.eq(0)]
        return m
