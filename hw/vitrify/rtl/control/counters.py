"""Performance counters of the registers, from pulses."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import csr
from vitrify.rtl.bus.csr import COUNTER_VALUES

#: One bit for each counter: count this cycle.
EVENTS = data.StructLayout({name.lower(): 1 for name, _ in csr.COUNTERS})


class Counters(wiring.Component):
    """Count events while a job runs; two cycles from an event to its count.

    Members
    -------
    events : In(EVENTS)
    running : In(1)
        Events of other cycles do not count.
    clear : In(1)
        Zero every counter.
    values : Out(COUNTER_VALUES)
    counted : Out(EVENTS)
        The events that count.
    """

    events: Any
    running: Signal
    clear: Signal
    values: Any
    counted: Any

    def __init__(self) -> None:
        super().__init__({
            "events": In(EVENTS), "running": In(1), "clear": In(1), "values": Out(COUNTER_VALUES),
            "counted": Out(EVENTS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        counted = Signal(EVENTS.size)
        m.d.comb += self.counted.eq(
            self.events.as_value() & self.running.replicate(EVENTS.size)
        )
        m.d.sync += counted.eq(self.counted)
        for i, name in enumerate(COUNTER_VALUES.members):
            with m.If(counted[i]):
                m.d.sync += self.values[name].eq(self.values[name] + 1)
            with m.If(self.clear):
                m.d.sync += self.values[name].eq(0)
        return m
