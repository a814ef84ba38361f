"""Partial sums of some columns: the data of an accumulator without its control."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import index_bits

from .layout import dot_bits, drain_layout

#: Verilog modules of sums are called so, with what distinguishes them behind.
NAME = "vitrify_sums"


class PartialSums(wiring.Component):
    """Work and drain memory of ``sum_columns`` columns, and their adders.

    1: read the partial sum; 2: into the memory's output register; 3: add; 4: write.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    row : In(range(max_rows))
        Row of ``sums``, which are added to its partial sums.
    sums : In(columns x signed(dot_bits))
        With ``nibble_tiles`` or ``nibble_thirds``, the parts of every column are columns here.
    first : In(1)
        Two cycles after ``sums``: to zero instead.
    write_row, write_work, write_drain : In(…)
        Three cycles after ``sums``: where the results go.
    drain_row : In(range(max_rows))
        Row of the drain memory to read; ``drain`` answers two cycles later.
    drain : Out(drain_layout(arch, columns))
    """

    row: Signal
    sums: data.View
    first: Signal
    write_row: Signal
    write_work: Signal
    write_drain: Signal
    drain_row: Signal
    drain: data.View

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.columns = arch.sum_columns
        row = index_bits(arch.max_rows)
        super().__init__({
            "row": In(row),
            "sums": In(data.ArrayLayout(signed(dot_bits(arch)), arch.sums(self.columns))),
            "first": In(1),
            "write_row": In(row), "write_work": In(1), "write_drain": In(1),
            "drain_row": In(row),
            "drain": Out(drain_layout(arch, self.columns)),
        })

    @staticmethod
    def module_name(arch: ArchConfig) -> str:
        """Verilog name: equal for equal parts."""
        halves = "_halves" if arch.nibble_tiles > 1 else "_thirds" if arch.nibble_thirds else ""
        return f"{NAME}_{arch.sum_columns}x{dot_bits(arch)}_{arch.max_rows}{halves}"

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        widths = self.arch.stored_sums
        width = sum(widths)
        ends = list(accumulate(widths))
        m.submodules.work = work = Memory(
            shape=unsigned(width), depth=self.arch.max_rows, init=[]
        )
        m.submodules.drained = drained = Memory(
            shape=unsigned(width), depth=self.arch.max_rows, init=[]
        )
        work_read, work_write = work.read_port(), work.write_port()
        drain_read, drain_write = drained.read_port(), drained.write_port()

        new = self.sums
        for stage in (1, 2):
            staged = Signal.like(self.sums, name=f"sums_{stage}", reset_less=True)
            m.d.sync += staged.eq(new)
            new = staged
        old, total, drain = (
            Signal(width, name=name, reset_less=True) for name in ("old", "total", "drained_row"))

        def one(row: Any, c: int) -> Any:
            return row[ends[c] - widths[c] : ends[c]].as_signed()

        m.d.sync += [
            old.eq(work_read.data),
            total.eq(Cat(
                (new[c] + Mux(self.first, 0, one(old, c)))[:bits] for c, bits in enumerate(widths)
            )),
            drain.eq(drain_read.data),
        ]
        m.d.comb += [
            *(self.drain[c].eq(one(drain, c)) for c in range(len(widths))),
            work_read.addr.eq(self.row), drain_read.addr.eq(self.drain_row),
            work_write.addr.eq(self.write_row), work_write.data.eq(total),
            work_write.en.eq(self.write_work),
            drain_write.addr.eq(self.write_row), drain_write.data.eq(total),
            drain_write.en.eq(self.write_drain),
        ]
        return m
