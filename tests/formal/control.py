"""Harnesses of the control units."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from tests.formal.prove import past
from tests.formal.streams import offer_stands
from vitrify.arch.csr import CSR_ADDRESS_BITS
from vitrify.arch.presets import preset
from vitrify.rtl.bus import csr
from vitrify.rtl.control import supervisor
from vitrify.rtl.interfaces import SEQ_BITS

#: Of RunAhead, so that a few cycles fill it.
WINDOW = 4


class RunAheadHarness(wiring.Component):
    """No instruction B sees more than two windows of A pass before it is finished."""

    def __init__(self, module):
        self._module = module
        super().__init__({"a": In(1), "b": In(1), "finish": In(1), "follow": In(1)})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._module.RunAhead()
        issued, done, ahead = Signal(SEQ_BITS), Signal(SEQ_BITS), Signal(SEQ_BITS)
        passes, ends = Signal(), Signal()
        m.d.comb += [
            ahead.eq(issued - done), passes.eq(self.a & dut.ready),
            dut.advance.eq(passes), dut.issued.eq(issued), dut.done.eq(done),
            ends.eq(self.finish & (ahead != 0)),
            # Queues bound how many B wait; A and B are dispatched one at a time.
            Assume((ahead < 8) | ~self.b), Assume(~(self.a & self.b)),
        ]
        m.d.sync += [issued.eq(issued + self.b), done.eq(done + ends)]
        # Any one of the B.
        followed, mine, passed = Signal(), Signal(SEQ_BITS), Signal(8)
        with m.If(~followed & self.b & self.follow):
            m.d.sync += [followed.eq(1), mine.eq(issued), passed.eq(0)]
        with m.Elif(followed & passes):
            m.d.sync += passed.eq(passed + 1)
        with m.If(followed & ends & (done == mine)):
            m.d.sync += followed.eq(0)
        m.d.comb += Assert(~followed | (passed <= 2 * WINDOW))
        return m


class SupervisorHarness(wiring.Component):
    """A reset ends, whatever the bus does, and resets nothing while the bus is busy."""

    def __init__(self, module=supervisor):
        self._module = module
        super().__init__({"reset": In(1), "bus_idle": In(1), "fault": In(1), "overflow": In(1)})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._module.Supervisor(reset_cycles=2, drain_cycles=4)
        m.d.comb += [
            dut.reset.eq(self.reset), dut.bus_idle.eq(self.bus_idle),
            dut.fault.valid.eq(self.fault), dut.overflow.eq(self.overflow),
        ]
        takes = Signal(5)
        with m.If(dut.resetting):
            m.d.sync += takes.eq(takes + 1)
        with m.Else():
            m.d.sync += takes.eq(0)
        idle, resets = past(m, dut.bus_idle, "idle"), past(m, dut.core_reset, "core_reset")
        failed, resetting = past(m, dut.failed, "failed"), past(m, dut.resetting, "resetting")
        stopped = past(m, dut.bus_stop, "bus_stop")
        m.d.comb += [
            Assert(takes <= 12),
            Assert(~dut.core_reset | resets | (idle & stopped)),
            Assert(~dut.core_reset | dut.resetting),
            Assert(~dut.lost | dut.failed),
            # An error stays until a reset has ended; it is told once.
            Assert(~failed | dut.failed | (resetting & ~dut.resetting)),
            Assert(~dut.failure | ~failed | resetting),
            Assert(dut.failed == (dut.error_code != 0)),
        ]
        return m


class RegistersHarness(wiring.Component):
    """Every write and every read is answered once, and the answer stands until it is taken."""

    def __init__(self, module=csr):
        self._module = module
        channels = {"awaddr": CSR_ADDRESS_BITS, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1,
                    "bready": 1, "araddr": CSR_ADDRESS_BITS, "arvalid": 1, "rready": 1}
        self._channels = tuple(channels)
        super().__init__({name: In(bits) for name, bits in channels.items()})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.dut = dut = self._module.ControlRegisters(preset("ulx3s"))
        axi = dut.s_axi
        m.d.comb += [getattr(axi, name).eq(getattr(self, name)) for name in self._channels]
        taken = {
            name: getattr(axi, f"{name}valid") & getattr(axi, f"{name}ready")
            for name in ("aw", "w", "b", "ar", "r")
        }
        counts = {name: Signal(5, name=f"{name}_count") for name in taken}
        m.d.sync += [counts[name].eq(counts[name] + taken[name]) for name in taken]
        for data, answer in (("aw", "b"), ("w", "b"), ("ar", "r")):
            open_ = (counts[data] - counts[answer])[:5]
            valid = getattr(axi, f"{answer}valid")
            m.d.comb += [Assert(open_ <= 2), Assert(~valid | (open_ != 0))]
        offer_stands(m, axi.bvalid, axi.bready, axi.bresp, "b")
        offer_stands(m, axi.rvalid, axi.rready, Cat(axi.rdata, axi.rresp), "r")
        return m
