"""The gate weight in a requantisation multiplier."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.rtl.lib.arith import Multiplier


class GateScale(wiring.Component):
    """``round(multiplier * weight / 2**GATE_FRAC)``: :func:`vitrify.golden.ops.routing.scale`.

    Parameters
    ----------
    fabric : multiply in LUTs instead of a DSP block

    Members
    -------
    multiplier : :py:`In(MULTIPLIER_BITS)`
    weight : :py:`In(GATE_BITS)`
        At most ``2**GATE_FRAC``, which changes nothing.
    o : :py:`Out(MULTIPLIER_BITS)`
        :attr:`LATENCY` cycles later.
    """

    #: Cycles from the factors to their product.
    LATENCY = Multiplier.latency_of(formats.GATE_BITS) + 1

    multiplier: Signal
    weight: Signal
    o: Signal

    def __init__(self, *, fabric: bool) -> None:
        self.fabric = fabric
        super().__init__({
            "multiplier": In(formats.MULTIPLIER_BITS), "weight": In(formats.GATE_BITS),
            "o": Out(formats.MULTIPLIER_BITS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.multiply = multiply = Multiplier(
            self.multiplier.shape(), self.weight.shape(), fabric=self.fabric
        )
        rounded = Signal.like(multiply.p, reset_less=True)
        m.d.sync += rounded.eq(multiply.p + (1 << (formats.GATE_FRAC - 1)))
        m.d.comb += [
            multiply.a.eq(self.multiplier), multiply.b.eq(self.weight),
            self.o.eq(rounded >> formats.GATE_FRAC),
        ]
        return m
