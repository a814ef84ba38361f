"""Row statistics: Σx and Σx² or the maximum of what the epilogue writes, a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from amaranth import Const, Module, Mux, Signal, signed, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import Stats
from vitrify.rtl import interfaces

from .delay import Delays
from .norm_finish import NormFinish

#: Bits of a logit's integer part.
_MAX_BITS = 8 - formats.LOGIT_FRAC
_PARTIAL = data.StructLayout({
    "total": signed(formats.SUM_BITS), "squares": unsigned(formats.SUMSQ_BITS),
})


def row_group(arch: ArchConfig) -> data.StructLayout:
    """A lane group that is being written, and its place in the row."""
    return data.StructLayout({
        "values": data.ArrayLayout(signed(formats.RESIDUAL_BITS), arch.lanes),
        "keep": arch.lanes,                             # lanes whose column exists
        "row": interfaces.index_bits(arch.max_rows),
        "stats": 3 if arch.row_sums else 2,             # modes.Stats
        "begins": 1,                                    # first group of the row in this c tile
        "ends": 1,                                      # last one
        "first_tile": 1,
        "last_tile": 1,
        "addr": interfaces.index_bits(arch.stat_rows),
        "inv_dim": formats.INV_DIM_BITS,
        "inv_shift": 5,
        "epsilon": 16,
    })


class RowStats(wiring.Component):
    """Gathers over lanes, groups and c tiles; finishes a row in its last c tile.

    Partial results of a row wait in a memory from c tile to c tile; a row may come back
    :attr:`REVISIT` cycles after its last group.  Rows of both kinds may be mixed, as long as
    their statistics do not become ready in the same cycle (see the latencies).

    Members
    -------
    i : :py:`In(pipe(row_group(arch)))`
        ``values`` of lanes without ``keep`` are zero.
    o : :py:`Out(pipe(stat_write(arch)))`
        :attr:`max_latency` (maxima, plain sums) or :attr:`norm_latency` cycles after the row's
        last group.
    norm_leaves : :py:`Out(1)`
        ``o`` carries a mean and deviation.
    """

    #: Least cycles from a row's last group to its first one in the next c tile.
    REVISIT = 4

    i: wiring.PureInterface
    o: wiring.PureInterface
    norm_leaves: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._levels = exact_log2(arch.lanes)
        super().__init__({
            "i": In(interfaces.pipe(row_group(arch))),
            "o": Out(interfaces.pipe(interfaces.stat_write(arch))),
            "norm_leaves": Out(1),
        })

    @property
    def max_latency(self) -> int:
        """Cycles from a row's last group to its maximum."""
        return self._levels + 4

    @property
    def norm_latency(self) -> int:
        """Cycles from a row's last group to its mean and deviation."""
        return self._levels + 4 + NormFinish.LATENCY

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._delays = d = Delays(m)
        group = self.i.p
        for name in ("row", "begins", "ends", "first_tile", "last_tile", "addr", "inv_dim",
                     "inv_shift", "epsilon"):
            d.put(name, group[name], 0)
        kinds = {"norm": (Stats.NORM,), "max": (Stats.MAX,)}
        if self.arch.row_sums:
            # All sums take the same way, as far as it is the same.
            kinds = {"norm": (Stats.NORM, Stats.RMS, Stats.SUM), "max": (Stats.MAX,),
                     "rms": (Stats.RMS,), "sum_only": (Stats.SUM,)}
        for name, stats in kinds.items():
            d.put(name, self.i.valid & group.stats.matches(*stats), 0, reset=True)
        norm, total = self._norm(m)
        maximum, maximum_done = self._maximum(m)
        norm_stat = Signal(interfaces.STAT)
        m.d.comb += norm_stat.eq(norm.p)
        m.d.sync += [
            self.o.valid.eq(norm.valid | maximum_done),
            self.norm_leaves.eq(norm.valid),
            self.o.p.stat.eq(norm_stat),
            self.o.p.addr.eq(d.at("addr", self.norm_latency - 1)),
        ]
        with m.If(maximum_done):
            m.d.sync += [
                self.o.p.stat.eq(0),
                self.o.p.stat.mean.eq(maximum),
                self.o.p.addr.eq(d.at("addr", self.max_latency - 1)),
            ]
        if self.arch.row_sums:
            self._sum(m, total)
        return m

    def _sum(self, m: Module, total: Any) -> None:
        """A row's plain sum leaves as early as a maximum does."""
        d, at, bits = self._delays, self.max_latency - 1, formats.SOFTMAX_SUM_BITS
        over = total[bits:-1].any()
        stat = self.o.p.stat
        mean = len(Value.cast(stat.mean))
        value = Mux(total[-1], 0, Mux(over, (1 << bits) - 1, total[:bits]))
        with m.If(d.at("sum_only", at) & self._complete(at)):
            m.d.sync += [
                self.o.valid.eq(1), stat.eq(0), stat.mean.eq(value[:mean].as_signed()),
                stat.shift.eq(value[mean:]),
                self.o.p.addr.eq(d.at("addr", at)),
            ]

    def _norm(self, m: Module) -> tuple[wiring.PureInterface, Any]:
        """The finished statistic, one cycle before it leaves, and the sum that it comes from."""
        d, values = self._delays, [self.i.p.values[lane] for lane in range(self.arch.lanes)]
        squares = []
        for lane, value in enumerate(values):
            # The two registers of a DSP block behind its operand registers.
            product = Signal(2 * formats.RESIDUAL_BITS, name=f"product{lane}", reset_less=True)
            square = Signal(2 * formats.RESIDUAL_BITS - 1, name=f"square{lane}", reset_less=True)
            m.d.sync += [product.eq(value * value), square.eq(product)]
            squares.append(square)
        d.put("sum", self._tree(m, values, lambda a, b: a + b, "sum"), self._levels)
        square_sum = self._tree(m, squares, lambda a, b: a + b, "squares")
        at = self._levels + 2                       # cycle of the group's sums
        partial = Signal(_PARTIAL, reset_less=True)
        waiting = self._partial(m, "norm", _PARTIAL, partial, at)
        base = Mux(d.at("begins", at), Mux(d.at("first_tile", at), 0, waiting), partial.as_value())
        old = data.View(_PARTIAL, base)
        with m.If(d.at("norm", at)):
            m.d.sync += [
                partial.total.eq(old.total + d.at("sum", at)),
                partial.squares.eq(old.squares + square_sum),
            ]
        m.submodules.finish = finish = NormFinish()
        ends: Value = d.at("norm", at + 1) & self._complete(at + 1)
        if self.arch.row_sums:
            ends &= ~d.at("sum_only", at + 1)
            m.d.comb += finish.i.p.plain.eq(d.at("rms", at + 1))
        m.d.comb += [
            finish.i.valid.eq(ends),
            *(finish.i.p[name].eq(partial[name]) for name in _PARTIAL.members),
            *(finish.i.p[name].eq(d.at(name, at + 1))
              for name in ("inv_dim", "inv_shift", "epsilon")),
        ]
        return finish.o, partial.total

    def _maximum(self, m: Module) -> tuple[Value, Value]:
        """The row's maximum so far, and whether it is complete; one cycle before it leaves."""
        d, parts = self._delays, []
        for lane in range(self.arch.lanes):
            part = Signal(signed(_MAX_BITS), name=f"part{lane}", reset_less=True)
            value = self.i.p.values[lane][formats.LOGIT_FRAC : 8].as_signed()
            m.d.sync += part.eq(Mux(self.i.p.keep[lane], value, -(1 << (_MAX_BITS - 1))))
            parts.append(part)
        d.put("top", self._tree(m, parts, lambda a, b: Mux(a > b, a, b), "top"), self._levels + 1)
        at = self._levels + 2
        top = d.at("top", at).as_signed()
        partial = Signal(signed(_MAX_BITS), reset_less=True)
        waiting = self._partial(m, "max", unsigned(_MAX_BITS), partial, at).as_signed()
        old = Mux(d.at("begins", at), waiting, partial)
        fresh = d.at("begins", at) & d.at("first_tile", at)
        with m.If(d.at("max", at)):
            m.d.sync += partial.eq(Mux(fresh | (top > old), top, old))
        return partial, d.at("max", at + 1) & self._complete(at + 1)

    def _complete(self, cycle: int) -> Value:
        return self._delays.at("ends", cycle) & self._delays.at("last_tile", cycle)

    def _partial(
        self, m: Module, kind: str, shape: object, partial: Value, cycle: int
    ) -> Value:
        """Memory of unfinished rows: what it holds for the row of ``cycle``.

        ``partial`` is the row's new value, one cycle later.
        """
        d = self._delays
        memory = Memory(shape=shape, depth=self.arch.max_rows, init=[])
        m.submodules[f"{kind}_partial"] = memory
        get, put = memory.read_port(), memory.write_port()
        m.d.comb += [
            get.en.eq(Const(1)), get.addr.eq(d.at("row", cycle - 2)),
            put.en.eq(d.at(kind, cycle + 1) & d.at("ends", cycle + 1)),
            put.addr.eq(d.at("row", cycle + 1)), put.data.eq(partial),
        ]
        held = Signal.like(Value.cast(get.data), name=f"{kind}_held", reset_less=True)
        m.d.sync += held.eq(get.data)
        return held

    @staticmethod
    def _tree(
        m: Module, values: Sequence[Value], join: Callable[[Value, Value], Value], name: str
    ) -> Value:
        """Joins pairs, one level a cycle."""
        level = 0
        while len(values) > 1:
            joined = []
            for i in range(0, len(values), 2):
                value = join(values[i], values[i + 1])
                one = Signal(value.shape(), name=f"{name}_{level}_{i // 2}", reset_less=True)
                m.d.sync += one.eq(value)
                joined.append(one)
            values, level = joined, level + 1
        return values[0]
