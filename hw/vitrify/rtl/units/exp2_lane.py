"""One softmax lane: int8 logit to an unsigned 8-bit weight below the row's maximum."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal

from vitrify.arch import formats

#: Beyond this exponent difference every weight rounds to zero: 224 < 2**8 < 2**(9 - 1) * 2.
_GONE = 9


class Exp2Lane:
    """``round((4 + frac) * 32 / 2**(max - int))``; see :func:`vitrify.golden.ops.softmax.exp2`."""

    #: Cycles from logit and maximum to the weight.
    latency = 3

    @classmethod
    def build(cls, m: Module, name: str, *, logit: Any, maximum: Any) -> Any:
        """Add the lane; returns its unsigned 8-bit result."""
        frac = formats.LOGIT_FRAC
        exponent = maximum - (logit >> frac)
        shift = Signal(4, name=f"{name}_shift", reset_less=True)
        one = Signal(8, name=f"{name}_one", reset_less=True)
        shifted = Signal(9, name=f"{name}_shifted", reset_less=True)
        weight = Signal(8, name=f"{name}_weight", reset_less=True)
        m.d.sync += [
            shift.eq(Mux(exponent < 0, 0, Mux(exponent > _GONE, _GONE, exponent))),
            one.eq(Cat(logit[:frac], Const(1, 1)) << formats.SOFTMAX_SHIFT),
            # One bit more below: the bit that rounds.
            shifted.eq(Cat(Const(0, 1), one) >> shift),
            weight.eq(shifted[1:] + shifted[0]),
        ]
        return weight
