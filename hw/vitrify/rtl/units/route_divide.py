"""Gate weights: a row's chosen softmax weights by the row's sum."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.rtl.interfaces import (
    CHOICE,
    EXPERT_BITS,
    ROUTE_COMMAND,
    ROUTE_TOTAL,
    ROUTE_WEIGHTS,
    pipe,
)

from .delay import Delays
from .reciprocal import Reciprocal

#: Rows whose sum is under way: one in ``MAX_CHOICES`` cycles, for as long as the softmax takes.
_IN_FLIGHT = 8
#: Least shift of a reciprocal: a sum is at least the weight of the best.
_LEAST_SHIFT = formats.ROUTE_BITS - 8
#: Product of weight and reciprocal, shifted right by this and by the rest of the reciprocal's
#: shift, is the gate weight.
_SHIFT = formats.RECIPROCAL_SHIFT - formats.GATE_FRAC + _LEAST_SHIFT
_ONE = 1 << formats.GATE_FRAC


class RouteDivide(wiring.Component):
    """The division of :func:`vitrify.golden.ops.routing.gate`: one choice a cycle, no stalls.

    Members
    -------
    choices : :py:`In(unsigned)`
    weights : :py:`In(pipe(ROUTE_WEIGHTS))`
    total : :py:`In(pipe(ROUTE_TOTAL))`
        Of the oldest row whose weights came; ``MAX_CHOICES`` cycles from one to the next.
    o : :py:`Out(pipe(CHOICE))`
        ``choices`` of every row in consecutive cycles, best first.
    """

    choices: Signal
    weights: wiring.PureInterface
    total: wiring.PureInterface
    o: wiring.PureInterface

    def __init__(self) -> None:
        super().__init__({
            "choices": In(ROUTE_COMMAND["choices"].shape),
            "weights": In(pipe(ROUTE_WEIGHTS)),
            "total": In(pipe(ROUTE_TOTAL)),
            "o": Out(pipe(CHOICE)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        d = Delays(m)
        m.submodules.waiting = waiting = SyncFIFO(width=ROUTE_WEIGHTS.size, depth=_IN_FLIGHT)
        m.submodules.reciprocal = reciprocal = Reciprocal()
        d.put("start", self.total.valid, 0, reset=True)
        d.put("rest", reciprocal.pre_shift - _LEAST_SHIFT, reciprocal.SHIFT_LATENCY)
        start = d.at("start", reciprocal.LATENCY)
        m.d.comb += [
            waiting.w_data.eq(self.weights.p), waiting.w_en.eq(self.weights.valid),
            reciprocal.total.eq(self.total.p.total), waiting.r_en.eq(start),
        ]
        row, left = Signal(ROUTE_WEIGHTS, reset_less=True), Signal.like(self.choices)
        factor = Signal.like(reciprocal.multiplier, reset_less=True)
        rest = Signal(3, reset_less=True)
        m.d.sync += [
            left.eq(left - (left != 0)),
            row.weights.eq(row.weights.as_value() >> formats.ROUTE_BITS),
            row.experts.eq(row.experts.as_value() >> EXPERT_BITS),
        ]
        with m.If(start):
            m.d.sync += [
                row.eq(waiting.r_data), left.eq(self.choices), factor.eq(reciprocal.multiplier),
                rest.eq(d.at("rest", reciprocal.LATENCY)),
            ]
        d.put("valid", left != 0, 0, reset=True)
        d.put("expert", row.experts[0], 0)
        d.put("first", row.experts[0] == row.lowest, 0)
        d.put("own_rest", rest, 0)

        # The registers of a DSP block, a shifter, and the rounding.
        weight = Signal(formats.ROUTE_BITS, reset_less=True)
        operand = Signal.like(factor, reset_less=True)
        product = Signal(len(weight) + len(operand), reset_less=True)
        # One more bit below carries the bit that rounds.
        shifted = Signal(len(product) - _SHIFT + 1, reset_less=True)
        gate = Signal(formats.GATE_BITS, reset_less=True)
        rounded = (shifted >> 1) + shifted[0]
        m.d.sync += [
            weight.eq(row.weights[0]), operand.eq(factor), product.eq(weight * operand),
            shifted.eq(product[_SHIFT - 1 :] >> d.at("own_rest", 2)),
            gate.eq(Mux(rounded > _ONE, _ONE, rounded)),
        ]
        out = self.o.p
        m.d.comb += [
            self.o.valid.eq(d.at("valid", 4)), out.expert.eq(d.at("expert", 4)),
            out.gate.eq(Cat(gate, d.at("first", 4))),
        ]
        return m
