"""A register in a stream, in both directions."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Skid(wiring.Component):
    """Two-entry buffer: ``valid``, payload and ``ready`` all come from registers.

    One transfer a cycle, one cycle of latency.  The second entry takes what arrives in the cycle
    in which the other side first says no.

    Parameters
    ----------
    shape : ShapeLike
        Of the payload.

    Members
    -------
    i : :py:`In(stream.Signature(shape))`
    o : :py:`Out(stream.Signature(shape))`
    empty : :py:`Out(1)`
    """

    i: Any
    o: Any
    empty: Signal

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "empty": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        kept, spare = Signal(self._shape, reset_less=True), Signal(self._shape, reset_less=True)
        spare_valid = Signal()
        m.d.comb += [
            self.i.ready.eq(~spare_valid), self.empty.eq(~self.o.valid & ~spare_valid),
            self.o.payload.eq(kept),
        ]
        with m.If(~spare_valid):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | spare_valid), spare_valid.eq(0),
                kept.eq(self.i.payload),
            ]
            with m.If(spare_valid):
                m.d.sync += kept.eq(spare)
        with m.Elif(self.i.valid):
            m.d.sync += spare_valid.eq(1)
        return m
