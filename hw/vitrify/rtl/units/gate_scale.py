"""The gate weight in a requantisation multiplier."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats


class GateScale(wiring.Component):
    """``round(multiplier * weight / 2**GATE_FRAC)``: :func:`vitrify.golden.ops.routing.scale`.

    The registers of one DSP block, its rounding constant included.

    Members
    -------
    multiplier : :py:`In(MULTIPLIER_BITS)`
    weight : :py:`In(GATE_BITS)`
        At most ``2**GATE_FRAC``, which changes nothing.
    o : :py:`Out(MULTIPLIER_BITS)`
        :attr:`LATENCY` cycles later.
    """

    #: Cycles from the factors to their product.
    LATENCY = 3

    multiplier: Signal
    weight: Signal
    o: Signal

    def __init__(self) -> None:
        super().__init__({
            "multiplier": In(formats.MULTIPLIER_BITS), "weight": In(formats.GATE_BITS),
            "o": Out(formats.MULTIPLIER_BITS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        multiplier, weight = (
            Signal.like(port, reset_less=True) for port in (self.multiplier, self.weight)
        )
        product = Signal(len(multiplier) + len(weight), reset_less=True)
        rounded = Signal.like(product, reset_less=True)
        m.d.sync += [
            multiplier.eq(self.multiplier), weight.eq(self.weight),
            product.eq(multiplier * weight),
            rounded.eq(product + (1 << (formats.GATE_FRAC - 1))),
        ]
        m.d.comb += self.o.eq(rounded >> formats.GATE_FRAC)
        return m
