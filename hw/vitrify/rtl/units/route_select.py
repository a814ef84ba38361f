"""The best experts of a row, from its logits."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.rtl.interfaces import (
    EXPERT_BITS,
    ROUTE_CHOSEN,
    ROUTE_COMMAND,
    ROUTE_LANES,
    ROUTE_LOGITS,
    pipe,
)

#: What is compared: there is a logit; the logit, offset binary; the complement of the expert.
#: So no two keys are equal, and of equal logits that of the lower expert is greater.
_KEY_BITS = 1 + formats.RESIDUAL_BITS + EXPERT_BITS
_SLOTS = formats.MAX_CHOICES
_LANE_BITS = exact_log2(ROUTE_LANES)


class RouteSelect(wiring.Component):
    """Sorted lists of the best in every lane, merged two cycles a choice.

    A lane inserts a logit into its list of ``MAX_CHOICES`` every cycle.  When a row is complete
    its lists move on; a merger takes the best of their heads ``choices`` times, while the lanes
    are at the next row.  It says the result once: the reader's spacing gives it the time.

    Members
    -------
    choices : :py:`In(unsigned)`
    i : :py:`In(pipe(ROUTE_LOGITS))`
        With the gaps of :class:`~vitrify.rtl.units.route_reader.RouteReader`.
    o : :py:`Out(stream.Signature(ROUTE_CHOSEN))`
        ``2 * choices + 2`` cycles after a row's last logits; must be taken before the next.
    """

    choices: Signal
    i: wiring.PureInterface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({
            "choices": In(ROUTE_COMMAND["choices"].shape),
            "i": In(pipe(ROUTE_LOGITS)),
            "o": Out(stream.Signature(ROUTE_CHOSEN)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        lists, moved = self._insert(m), Signal()
        m.d.sync += moved.eq(self.i.valid & self.i.p.last)
        with m.If(moved):
            # No logits arrive in this cycle.
            m.d.sync += [slot.eq(0) for slots in lists for slot in slots]
        self._merge(m, lists, moved)
        return m

    def _insert(self, m: Module) -> list[list[Signal]]:
        lists = []
        for lane in range(ROUTE_LANES):
            slots = [Signal(_KEY_BITS, name=f"lane{lane}_{n}") for n in range(_SLOTS)]
            logit = self.i.p.logits[lane]
            expert = Cat(Const(lane, _LANE_BITS), self.i.p.group)
            key = Signal(_KEY_BITS, name=f"key{lane}")
            m.d.comb += key.eq(Cat(~expert, logit[:-1], ~logit[-1], 1))
            better = [key > slot for slot in slots]
            with m.If(self.i.valid & self.i.p.lanes[lane]):
                for n, slot in enumerate(slots):
                    with m.If(better[n]):
                        m.d.sync += slot.eq(
                            Mux(better[n - 1], slots[n - 1], key) if n else key
                        )
            lists.append(slots)
        return lists

    def _merge(self, m: Module, lists: list[list[Signal]], moved: Signal) -> None:
        rest = [[Signal(_KEY_BITS, name=f"rest{lane}_{n}", reset_less=True)
                 for n in range(_SLOTS)] for lane in range(ROUTE_LANES)]
        heads = [slots[0] for slots in rest]
        # Best of each half of the lanes, and which lane it is.
        half = data.StructLayout({"key": _KEY_BITS, "odd": 1})
        low, high = Signal(half, reset_less=True), Signal(half, reset_less=True)
        busy, second = Signal(), Signal()
        left = Signal.like(self.choices)
        chosen = [Signal(_KEY_BITS, name=f"chosen{n}", reset_less=True) for n in range(_SLOTS)]
        lowest = Signal(EXPERT_BITS, reset_less=True)
        number = Signal.like(self.choices)
        for best, pair in ((low, heads[:2]), (high, heads[2:])):
            odd = pair[1] > pair[0]
            m.d.sync += [best.odd.eq(odd), best.key.eq(Mux(odd, pair[1], pair[0]))]
        upper, winner = Signal(), Signal(_KEY_BITS)
        m.d.comb += [
            upper.eq(high.key > low.key), winner.eq(Mux(upper, high.key, low.key))
        ]
        lane = Cat(Mux(upper, high.odd, low.odd), upper)
        expert = Signal(EXPERT_BITS)
        m.d.comb += expert.eq(~winner)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(busy):
            m.d.sync += second.eq(~second)
        with m.If(busy & second):
            m.d.sync += [
                left.eq(left - 1), number.eq(number + 1),
                lowest.eq(Mux((number == 0) | (expert < lowest), expert, lowest)),
                Array(chosen)[number].eq(winner),
            ]
            for taken, slots in enumerate(rest):
                with m.If(lane == taken):
                    m.d.sync += [slots[n].eq(slots[n + 1]) for n in range(_SLOTS - 1)]
                    m.d.sync += slots[-1].eq(0)
            with m.If(left == 1):
                m.d.sync += [busy.eq(0), self.o.valid.eq(1)]
        with m.If(moved):
            m.d.sync += [busy.eq(1), second.eq(0), left.eq(self.choices), number.eq(0)]
            for slots, source in zip(rest, lists, strict=True):
                m.d.sync += [slot.eq(old) for slot, old in zip(slots, source, strict=True)]
        out = self.o.payload
        m.d.comb += out.lowest.eq(lowest)
        for n, key in enumerate(chosen):
            m.d.comb += [
                out.experts[n].eq(~key[:EXPERT_BITS]),
                out.logits[n].eq(Cat(key[EXPERT_BITS:-2], ~key[-2])),
            ]
