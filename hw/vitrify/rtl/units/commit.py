"""Publishes the epilogue's progress, in order, when results and statistics can be read."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.rtl import interfaces

#: A row of a c tile whose results are being written.
ROW_DONE = data.StructLayout({
    "wait": 2,              # the row completes a maximum or sum (0), a mean and deviation (1)
    "last_tile": 1,         # the c tile in progress from here on is the instruction's last
    "tile_ends": 1,
    "ends": 1,              # last row of the instruction
})


class Commit(wiring.Component):
    """Rows come in when their results are written, and count when they are complete.

    A row without statistics counts at once, another when its statistic has left; nobody
    overtakes: a row that comes in while older ones wait, waits with them.

    Parameters
    ----------
    max_delay, norm_delay : int
        Cycles from a row's results to its statistic; ``max_delay`` is the smaller one.

    Members
    -------
    i : :py:`In(pipe(ROW_DONE))`
    progress : :py:`Out(EPILOGUE_PROGRESS)`
    ends : :py:`Out(1)`
        The last row of an instruction is counted in this cycle.
    """

    i: wiring.PureInterface
    progress: data.View
    ends: Signal

    def __init__(self, *, max_delay: int, norm_delay: int) -> None:
        self.max_delay = max_delay
        self.norm_delay = norm_delay
        super().__init__({
            "i": In(interfaces.pipe(ROW_DONE)),
            "progress": Out(interfaces.EPILOGUE_PROGRESS),
            "ends": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        rows: list[data.View] = [self.i.p]
        valid: list[Value] = [self.i.valid]
        for cycle in range(1, self.norm_delay + 1):
            row = Signal(ROW_DONE, name=f"row_{cycle}", reset_less=True)
            rows.append(row)
            valid.append(Signal(name=f"valid_{cycle}"))
        # Cycle in which a kind may leave, if nothing older is on the way.
        leaves = {
            0: ~rows[0].wait.any(),
            self.max_delay: ~rows[self.max_delay].wait[1],
            self.norm_delay: Const(1, 1),
        }
        taken: dict[int, Value] = {}
        for cycle, may in leaves.items():
            taken[cycle] = valid[cycle] & may & ~Cat(*valid[cycle + 1 :]).any()
        for cycle in range(1, self.norm_delay + 1):
            stays = valid[cycle - 1] & ~taken.get(cycle - 1, Const(0, 1))
            m.d.sync += [valid[cycle].eq(stays), rows[cycle].eq(rows[cycle - 1])]

        progress = self.progress
        for cycle, take in taken.items():
            row = rows[cycle]
            with m.If(take):
                m.d.sync += [
                    progress.row.eq(progress.row + 1), progress.last_tile.eq(row.last_tile)
                ]
                with m.If(row.tile_ends):
                    m.d.sync += [
                        progress.row.eq(0), progress.tiles_done.eq(progress.tiles_done + 1)
                    ]
                with m.If(row.ends):
                    m.d.comb += self.ends.eq(1)
                    m.d.sync += progress.seq.eq(progress.seq + 1)
        return m
