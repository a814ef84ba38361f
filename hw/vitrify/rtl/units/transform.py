"""Operand transform: what happens to a word between the token memory and the matrix unit."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.modes import WIDE_TRANSFORMS
from vitrify.arch.modes import Transform as Mode
from vitrify.rtl.interfaces import MIN_PASS, index_bits, operand_layout, pipe, transform_input
from vitrify.rtl.lib.arith import saturate
from vitrify.rtl.lib.shared import place
from vitrify.rtl.units.delay import Delays
from vitrify.rtl.units.norm_lane import (
    PASS_GAIN,
    PASS_MANTISSA,
    PASS_SHIFT,
    ROW,
    TOP_BITS,
    NormLane,
)

NORMS = (Mode.NORM, Mode.SCALE)
#: Terms that one registered level of the row sum's adder tree takes.
_RADIX = 4


class Transform(wiring.Component):
    """K lanes that normalise, exponentiate or pass a word; one word a cycle, fixed latency.

    NONE, NORM, SCALE, PRODUCT and EXP2 are :func:`vitrify.golden.ops.layernorm.apply`,
    :func:`~vitrify.golden.ops.layernorm.product` and
    :func:`vitrify.golden.ops.softmax.exp2`; lanes from ``lanes`` on give zero.  With ``tag.sum``
    the weights of the word are added to the row sum ``{sum_bank, row}`` (``tag.first``: replace).

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    i : In(pipe(transform_input))
    o : Out(pipe(operand_layout)), :attr:`latency` cycles later
    sum_addr : In, ``Cat(row, bank)`` of a row sum
    sum_data : Out(SOFTMAX_SUM_BITS), one cycle later
    """

    i: Any
    o: Any
    sum_addr: Signal
    sum_data: Signal

    #: Cycles from ``i`` to ``o``: a register behind the memories, choice of the mode, the lanes.
    latency = 2 + NormLane.latency
    #: Cycles after which a row's sum may be added to again.
    sum_recurrence = 2

    def __init__(self, arch: ArchConfig) -> None:
        assert self.sum_recurrence <= MIN_PASS
        self._arch = arch
        super().__init__({
            "i": In(pipe(transform_input(arch))),
            "o": Out(pipe(operand_layout(arch))),
            "sum_addr": In(index_bits(arch.max_rows) + 1),
            "sum_data": Out(formats.SOFTMAX_SUM_BITS),
        })

    @property
    def sum_latency(self) -> int:
        """Cycles from a word at ``i`` to the first ``sum_addr`` whose data include it."""
        return self._summed + 2

    @property
    def _summed(self) -> int:
        levels, terms = 0, self._arch.depth
        while terms > 1:
            levels, terms = levels + 1, -(-terms // _RADIX)
        return self.latency + levels

    def elaborate(self, platform: object) -> Module:
        m = Module()
        delays = Delays(m)
        delays.put("valid", self.i.valid, 0, reset=True)
        delays.put("tag", self.i.p.tag.as_value(), 0)
        # Token memory, statistics and gains answer late in their cycle.
        self._word = Signal.like(self.i.p, reset_less=True)
        m.d.sync += self._word.eq(self.i.p)
        row = self._row(m)
        fabric = self._arch.fabric_multipliers
        lanes = place(
            m, platform, lambda: NormLane(fabric=fabric), count=self._arch.depth,
            name="vitrify_norm_lane_fabric" if fabric else "vitrify_norm_lane",
        )
        for index, lane in enumerate(lanes):
            self._feed(m, lane, index)
            m.d.comb += lane.row.eq(row)
        outputs = [lane.y for lane in lanes]
        m.d.comb += [
            self.o.valid.eq(delays.at("valid", self.latency)),
            self.o.p.tag.eq(delays.at("tag", self.latency)),
            self.o.p.data.eq(Cat(outputs)),
        ]
        self._sum(m, delays, outputs)
        return m

    def _row(self, m: Module) -> Any:
        """Cycle 2: what the lanes share."""
        word = self._word
        row = Signal(ROW, reset_less=True)
        norm = self._normalises()
        exp2 = word.mode == Mode.EXP2
        m.d.sync += [
            row.mean.eq(Mux(norm, word.stat.mean, 0)),
            row.top.eq(saturate(word.stat.mean, TOP_BITS)),
            row.shift.eq(Mux(norm, word.stat.shift, PASS_SHIFT)),
            row.mantissa.eq(Mux(norm, word.stat.mantissa, PASS_MANTISSA)),
            row.exp2.eq(exp2),
        ]
        return row

    def _normalises(self) -> Any:
        mode = self._word.mode
        return mode.matches(*(WIDE_TRANSFORMS if self._arch.products else NORMS))

    def _feed(self, m: Module, unit: Any, lane: int) -> None:
        """Cycle 2: what the mode makes of a lane's bytes."""
        word = self._word
        low, high = (part.word_select(lane, 8) for part in (word.lo, word.hi))
        frac = low[:formats.LOGIT_FRAC]
        x, logit = Signal.like(unit.x, reset_less=True), Signal.like(unit.logit, reset_less=True)
        gain = Signal.like(unit.gain, reset_less=True)
        zeros = Const(0, formats.MEAN_FRAC)
        own: Any = word.gain.word_select(lane, 8)
        wide: Any = Cat(zeros, low, high).as_signed()
        if self._arch.products:
            product = word.mode == Mode.PRODUCT
            negative = high[-1]
            signed_low = (low ^ negative.replicate(8)).as_signed() + negative
            magnitude = (high ^ negative.replicate(8)) + negative
            wide = Mux(product, Cat(zeros, signed_low).as_signed(), wide)
            own = Mux(product, magnitude[:8], own)
        m.d.sync += [
            x.eq(Mux(
                self._normalises(), wide,
                Mux(word.mode == Mode.EXP2, Cat(frac, 1), Cat(zeros, low).as_signed()),
            )),
            logit.eq(low[formats.LOGIT_FRAC:].as_signed()),
            # A gain of zero silences a lane in every mode.
            gain.eq(Mux(word.lanes > lane, Mux(self._normalises(), own, PASS_GAIN), 0)),
        ]
        m.d.comb += [unit.x.eq(x), unit.logit.eq(logit), unit.gain.eq(gain)]

    def _sum(self, m: Module, delays: Delays, outputs: list[Any]) -> None:
        """Row sums: an adder tree, then read, add and write in consecutive cycles."""
        arch, tag_shape = self._arch, self.i.p.tag.shape()
        terms: list[Any] = [output[:8] for output in outputs]
        while len(terms) > 1:
            level = []
            for at in range(0, len(terms), _RADIX):
                total: Any = sum(terms[at + 1 : at + _RADIX], terms[at])
                register = Signal(total.shape(), reset_less=True)
                m.d.sync += register.eq(total)
                level.append(register)
            terms = level
        m.submodules.sums = sums = Memory(
            shape=formats.SOFTMAX_SUM_BITS, depth=2 * arch.max_rows, init=[])
        old, new, asked = sums.read_port(), sums.write_port(), sums.read_port()
        early, tag = (tag_shape(delays.at("tag", self._summed - n)) for n in (1, 0))
        valid = delays.at("valid", self._summed)
        m.d.comb += old.addr.eq(Cat(early.row, early.sum_bank))
        m.d.sync += [
            new.en.eq(valid & tag.sum),
            new.addr.eq(Cat(tag.row, tag.sum_bank)),
            new.data.eq(terms[0] + Mux(tag.first, 0, old.data)),
        ]
        m.d.comb += [asked.addr.eq(self.sum_addr), self.sum_data.eq(asked.data)]
