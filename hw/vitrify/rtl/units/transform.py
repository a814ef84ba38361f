"""The operand transform: what happens to a word between token memory and matrix unit."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats, isa
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import (
    MIN_PASS,
    index_bits,
    operand_layout,
    pipe,
    tag_layout,
    transform_input,
)
from vitrify.rtl.units.delay import Delays
from vitrify.rtl.units.exp2_lane import Exp2Lane
from vitrify.rtl.units.norm_lane import NormLane

#: Terms that one registered adder level sums.
_RADIX = 4


class Transform(wiring.Component):
    """K lanes of LayerNorm and base-2 exponential, and the row sums of the latter.

    One word a cycle, :attr:`latency` cycles in every mode.  Elements from ``lanes`` on are zero.

    Parameters
    ----------
    arch : ArchConfig
        ``fabric_norm`` builds the LayerNorm multipliers from LUTs.

    Members
    -------
    i : In(pipe(transform_input))
    o : Out(pipe(operand_layout))
    sum_addr : In(1 + row)
        Row sum to read: the row, with ``sum_bank`` above it.
    sum_data : Out(SOFTMAX_SUM_BITS)
        The sum, one cycle later.  A word counts :attr:`sum_latency` cycles after it came in.
    """

    i: Any
    o: Any
    sum_addr: Signal
    sum_data: Signal

    #: Cycles from ``i`` to ``o``.
    latency = NormLane.latency + 1

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        super().__init__({
            "i": In(pipe(transform_input(arch))),
            "o": Out(pipe(operand_layout(arch))),
            "sum_addr": In(1 + index_bits(arch.max_rows)),
            "sum_data": Out(formats.SOFTMAX_SUM_BITS),
        })

    @property
    def _sum_at(self) -> int:
        """Cycle in which the sum of one word is known."""
        levels, terms = 0, self._arch.depth
        while terms > 1:
            terms, levels = -(-terms // _RADIX), levels + 1
        return Exp2Lane.latency + 1 + levels

    @property
    def sum_latency(self) -> int:
        """Cycles from ``i`` until a read started in that cycle finds the word's weights added."""
        return self._sum_at + 3

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch, p, keep = self._arch, self.i.p, Delays(m)
        k = arch.depth
        keep.put("valid", self.i.valid, 0, reset=True)
        for name in ("mode", "gain"):
            keep.put(name, getattr(p, name), 0)
        keep.put("tag", p.tag.as_value(), 0)
        keep.put("mantissa", p.stat.mantissa, 0)
        keep.put("shift", (p.stat.shift - 1)[:5], 0)
        keep.put("mask", Cat(p.lanes > n for n in range(k)), 0)

        norm_lane = NormLane(fabric=arch.fabric_norm)
        shift = [keep.at("shift", n) for n in range(3)]
        mantissa = keep.at("mantissa", NormLane.mantissa_at)
        gain = keep.at("gain", NormLane.gain_at)
        weights, plain, normal = [], [], []
        for n in range(k):
            low = p.lo.word_select(n, 8)
            weights.append(Exp2Lane.build(
                m, f"exp2_{n}", logit=low.as_signed(), maximum=p.stat.mean
            ))
            plain.append(low)
            normal.append(norm_lane.build(
                m, f"norm_{n}", x=Cat(low, p.hi.word_select(n, 8)).as_signed(), mean=p.stat.mean,
                shift=shift, mantissa=mantissa, gain=gain.word_select(n, 8),
            ))
        keep.put("byte", Cat(plain), 0)

        # int8 and softmax weights share the way to the output: 9 bits, masked.
        at = Exp2Lane.latency
        is_exp2 = keep.at("mode", at) == isa.Transform.EXP2
        bytes_at, mask = keep.at("byte", at), keep.at("mask", at)
        short = Signal(formats.OPERAND_BITS * k, name="short", reset_less=True)
        masked = []
        for n in range(k):
            byte = bytes_at.word_select(n, 8)
            value = Mux(is_exp2, weights[n], byte)
            sign = ~is_exp2 & byte[-1]
            masked.append(Mux(mask[n], Cat(value, sign), 0))
        m.d.sync += short.eq(Cat(masked))
        keep.put("short", short, at + 1)
        self._sums(m, keep, short)

        end = NormLane.latency
        mode = keep.at("mode", end)
        is_norm = Signal()
        m.d.comb += is_norm.eq((mode == isa.Transform.NORM) | (mode == isa.Transform.SCALE))
        short_end, mask = keep.at("short", end), keep.at("mask", end)
        out = Signal(formats.OPERAND_BITS * k, name="out", reset_less=True)
        m.d.sync += out.eq(Cat(
            Mux(is_norm, Mux(mask[n], Cat(normal[n], normal[n][-1]), 0),
                short_end.word_select(n, formats.OPERAND_BITS))
            for n in range(k)
        ))
        m.d.comb += [
            self.o.valid.eq(keep.at("valid", self.latency)),
            self.o.p.tag.as_value().eq(keep.at("tag", self.latency)),
            self.o.p.data.as_value().eq(out),
        ]
        return m

    def _sums(self, m: Module, keep: Delays, short: Signal) -> None:
        """Row sums: adder tree, then read, add and write."""
        arch = self._arch
        terms: list[Any] = [
            short.word_select(n, formats.OPERAND_BITS)[:8] for n in range(arch.depth)
        ]
        level = 0
        while len(terms) > 1:
            summed = []
            for n in range(0, len(terms), _RADIX):
                value = sum(terms[n + 1 : n + _RADIX], terms[n])
                register = Signal(value.shape(), name=f"total_{level}_{n}", reset_less=True)
                m.d.sync += register.eq(value)
                summed.append(register)
            terms, level = summed, level + 1
        at = self._sum_at

        m.submodules.row_sums = memory = Memory(
            shape=unsigned(formats.SOFTMAX_SUM_BITS), depth=2 * arch.max_rows, init=[]
        )
        assert MIN_PASS >= 4, "a sum is written two cycles after it is read"
        old, result, write = memory.read_port(), memory.read_port(), memory.write_port()

        def tag(cycle: int) -> Any:
            view = Signal(tag_layout(arch), name=f"tag_view_{cycle}")
            m.d.comb += view.as_value().eq(keep.at("tag", cycle))
            return view

        first, second, third = tag(at), tag(at + 1), tag(at + 2)
        total = Signal.like(terms[0], name="total", reset_less=True)
        new = Signal(formats.SOFTMAX_SUM_BITS, reset_less=True)
        m.d.sync += [total.eq(terms[0]), new.eq(Mux(second.first, 0, old.data) + total)]
        m.d.comb += [
            old.addr.eq(Cat(first.row, first.sum_bank)),
            write.addr.eq(Cat(third.row, third.sum_bank)),
            write.data.eq(new),
            write.en.eq(keep.at("valid", at + 2) & third.sum),
            result.addr.eq(self.sum_addr),
            self.sum_data.eq(result.data),
        ]
