"""Harnesses of what streams go through."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.hdl import Assert
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In

from tests.formal.prove import past
from vitrify.rtl.bus import resize
from vitrify.rtl.lib import skid


def offer_stands(m: Module, valid, ready, payload, name: str) -> None:
    """What is offered and not taken is offered again, unchanged."""
    waits = past(m, valid & ~ready, f"{name}_waits")
    before = past(m, payload, f"{name}_payload")
    m.d.comb += Assert(~waits | (valid & (payload == before)))


class SkidHarness(wiring.Component):
    """Two entries: nothing is lost, repeated, reordered or withdrawn."""

    valid: Signal
    payload: Signal
    ready: Signal

    def __init__(self, module=skid):
        self._module = module
        super().__init__({"valid": In(1), "payload": In(3), "ready": In(1)})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._module.Skid(unsigned(3))
        m.d.comb += [
            dut.i.valid.eq(self.valid), dut.i.payload.eq(self.payload),
            dut.o.ready.eq(self.ready),
        ]
        entered, left = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        # What a queue of two would hold, the oldest first.
        count, oldest, second = Signal(2), Signal(3), Signal(3)
        room = Mux(left, count - 1, count)[:2]
        m.d.sync += count.eq(count + entered - left)
        with m.If(left):
            m.d.sync += oldest.eq(second)
        with m.If(entered & (room == 0)):
            m.d.sync += oldest.eq(self.payload)
        with m.If(entered & (room == 1)):
            m.d.sync += second.eq(self.payload)
        offer_stands(m, dut.o.valid, dut.o.ready, dut.o.payload, "o")
        m.d.comb += [
            Assert(count <= 2), Assert(dut.o.valid == (count != 0)),
            Assert(dut.i.ready == (count != 2)), Assert(dut.empty == (count == 0)),
            Assert(~dut.o.valid | (dut.o.payload == oldest)),
        ]
        return m


class ResizeHarness(wiring.Component):
    """Words to parts and back: the same words."""

    valid: Signal
    payload: Signal
    stall: Signal
    ready: Signal

    def __init__(self, module=resize, parts=4):
        self._module, self._parts = module, parts
        super().__init__({
            "valid": In(1), "payload": In(parts), "stall": In(1), "ready": In(1),
        })

    def elaborate(self, _platform):
        m = Module()
        m.submodules.scatter = scatter = self._module.Scatter(1, self._parts)
        m.submodules.gather = gather = self._module.Gather(1, self._parts)
        moves = scatter.o.valid & gather.i.ready & ~self.stall
        m.d.comb += [
            scatter.i.valid.eq(self.valid), scatter.i.payload.eq(self.payload),
            gather.i.valid.eq(scatter.o.valid & ~self.stall),
            gather.i.payload.eq(scatter.o.payload),
            scatter.o.ready.eq(moves), gather.o.ready.eq(self.ready),
        ]
        entered, left = scatter.i.valid & scatter.i.ready, gather.o.valid & gather.o.ready
        # Word number n is followed through both; n is free.
        numbers = [Signal(3, name=name) for name in ("words_in", "words_out")]
        chosen, known = Signal(self._parts), Signal()
        which = Signal(3, init=2)
        m.d.sync += [numbers[0].eq(numbers[0] + entered), numbers[1].eq(numbers[1] + left)]
        with m.If(entered & (numbers[0] == which)):
            m.d.sync += [chosen.eq(self.payload), known.eq(1)]
        offer_stands(m, gather.o.valid, gather.o.ready, gather.o.payload, "o")
        m.d.comb += Assert(
            ~(gather.o.valid & (numbers[1] == which)) | (known & (gather.o.payload == chosen))
        )
        return m


class FifoHarness(wiring.Component):
    """``level`` of Amaranth's FIFOs is what is in them, all of it: loaders promise tiles by it."""

    def __init__(self, module=fifo, name="SyncFIFOBuffered", depth=5):
        self._fifo = getattr(module, name)(width=4, depth=depth)
        super().__init__({"valid": In(1), "ready": In(1)})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._fifo
        entered, left = Signal(4), Signal(4)
        m.d.comb += [
            dut.w_en.eq(self.valid), dut.w_data.eq(entered), dut.r_en.eq(self.ready),
            Assert(dut.level == (entered - left)[:4]), Assert(dut.level <= dut.depth),
            Assert(~dut.r_rdy | (dut.r_data == left)),
            # Word after word: what is there comes out a cycle later at the latest.
            Assert(dut.r_rdy | (dut.level <= 1)),
        ]
        m.d.sync += [
            entered.eq(entered + (dut.w_en & dut.w_rdy)), left.eq(left + (dut.r_en & dut.r_rdy)),
        ]
        return m
