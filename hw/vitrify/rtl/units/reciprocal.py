"""Row scale of the softmax: shift and multiplier from the sum of a row's weights."""

from __future__ import annotations

from typing import Any

from amaranth import Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats

#: Bits of a reciprocal table entry.
_ENTRY_BITS = max(formats.reciprocal_table()).bit_length()
#: log2 of the least sum: the weight of a row's maximum.
_LEAST = 7


class Reciprocal(wiring.Component):
    """``2**RECIPROCAL_SHIFT / sum``, one a cycle: :func:`vitrify.golden.ops.softmax.reciprocal`.

    Members
    -------
    total : :py:`In(SOFTMAX_SUM_BITS)`
        Row sum; sums below 128 count as 128.
    fixed, fixed_shift : :py:`In(1)`, :py:`In(4)`
        One cycle after ``total``: give ``fixed_shift`` instead of the sum's shift.
    pre_shift : :py:`Out(4)`
        0 … 12, :attr:`SHIFT_LATENCY` cycles after ``total``.
    multiplier : :py:`Out(13)`
        :attr:`LATENCY` cycles after ``total``; without meaning if ``fixed``.
    """

    #: Cycles from the sum to the shift.
    SHIFT_LATENCY = 2
    #: Cycles from the sum to the multiplier.
    LATENCY = 5

    total: Signal
    fixed: Signal
    fixed_shift: Signal
    pre_shift: Signal
    multiplier: Signal

    def __init__(self) -> None:
        super().__init__({
            "total": In(formats.SOFTMAX_SUM_BITS),
            "fixed": In(1),
            "fixed_shift": In(4),
            "pre_shift": Out(4),
            "multiplier": Out(_ENTRY_BITS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        index_bits = formats.RECIPROCAL_INDEX_BITS
        total = Signal(formats.SOFTMAX_SUM_BITS, reset_less=True)
        m.d.sync += total.eq(self.total)

        # The shift is that of the highest bit above the least sum's.
        shift = Signal(4)
        for n in range(_LEAST + 1, formats.SOFTMAX_SUM_BITS):
            with m.If(total[n]):
                m.d.comb += shift.eq(n - _LEAST)
        below = Signal(reset_less=True)
        # One bit of the mantissa is the leading one; with the least shift two zeros follow it.
        mantissa = Signal(len(total) + index_bits - _LEAST, reset_less=True)
        m.d.sync += [
            self.pre_shift.eq(Mux(self.fixed, self.fixed_shift, shift)),
            below.eq(~total[_LEAST:].any()),
            mantissa.eq(total << (index_bits - _LEAST)),
        ]

        half = Signal(index_bits + 12, reset_less=True)
        half_shift, half_below = Signal(2, reset_less=True), Signal(reset_less=True)
        index = Signal(index_bits, reset_less=True)
        m.d.sync += [
            half.eq(mantissa >> self.pre_shift[:2]),
            half_shift.eq(self.pre_shift[2:]),
            half_below.eq(below),
            index.eq(Mux(half_below, 0, half >> (half_shift << 2))),
        ]

        m.submodules.table = table = Memory(
            shape=unsigned(_ENTRY_BITS), depth=1 << index_bits, init=formats.reciprocal_table()
        )
        port = table.read_port()
        m.d.comb += [port.en.eq(Const(1)), port.addr.eq(index), self.multiplier.eq(port.data)]
        return m
