"""Harnesses of the bus masters, with a memory that answers whenever it likes."""

from __future__ import annotations

import dataclasses

from amaranth import Array, Cat, Const, Module, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from tests.formal.prove import past
from tests.formal.streams import offer_stands
from vitrify.arch.config import ArchConfig
from vitrify.arch.memmap import ADDRESS_BITS
from vitrify.rtl.bus import bursts, read_master, write_master

#: Two words a burst, two bursts in flight.
SMALL = ArchConfig(
    name="formal", depth=4, width=2, lanes=1, max_rows=16, banks=2, bank_words=16, stat_rows=16,
    index_entries=16, bus_bytes=2, burst_beats=4, outstanding=2, weight_fifo_words=16,
)
#: A word is two bursts.
SPLIT = dataclasses.replace(SMALL, bus_bytes=1, burst_beats=2)
_PAGE = 4096
#: Free bits of an address: those of two pages.
_FREE = 13
_WORDS = 6
_FIFO = 4


def check_burst(m: Module, arch: ArchConfig, address, beats) -> None:
    """A burst is aligned, in one page, and no longer than agreed."""
    m.d.comb += [
        Assert((beats != 0) & (beats <= arch.burst_beats)),
        Assert(address[: (arch.bus_bytes - 1).bit_length()] == 0),
        Assert(address[:12] + beats * arch.bus_bytes <= _PAGE),
    ]


class Ledger:
    """Bursts that were announced and not finished, in order; ``head`` is the oldest."""

    def __init__(self, m: Module, name: str, width: int, depth: int, push, value, pop) -> None:
        entries = Array(Signal(width, name=f"{name}_{i}") for i in range(depth))
        into, out = (Signal(range(depth), name=f"{name}_{way}") for way in ("in", "out"))
        self.count = Signal(range(depth + 2), name=f"{name}_count")
        self.head = entries[out]
        m.d.sync += self.count.eq(self.count + push - pop)
        with m.If(push):
            m.d.sync += [entries[into].eq(value), into.eq((into + 1) % depth)]
        with m.If(pop):
            m.d.sync += out.eq((out + 1) % depth)
        m.d.comb += Assert(self.count <= depth)


class SplitterHarness(wiring.Component):
    """Bursts of a request: each within its bounds, together the request."""

    def __init__(self, module=bursts, arch=SMALL):
        self._module, self._arch = module, arch
        super().__init__({"address": In(ADDRESS_BITS), "words": In(26), "valid": In(1),
                          "ready": In(1)})

    def elaborate(self, _platform):
        m, arch = Module(), self._arch
        unit = self._module.unit_bytes(arch, arch.burst_beats)
        units = self._module.burst_units(arch, _FIFO, arch.burst_beats)
        m.submodules.dut = dut = self._module.BurstSplitter(arch, units=units, unit=unit)
        left, at = Signal(27), Signal(ADDRESS_BITS)
        m.d.comb += [
            # One request at a time, so that all its bursts can be told from the next one's.
            dut.i.valid.eq(self.valid & (left == 0)), dut.i.p.address.eq(self.address),
            dut.i.p.words.eq(self.words), dut.o.ready.eq(self.ready),
            Assume(self.address[:2] == 0), Assume(self.words < 1 << 20),
            # What is behind the last address is nobody's.
            Assume(self.address < 1 << ADDRESS_BITS - 1),
        ]
        taken, sent = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        parts = arch.depth // unit
        with m.If(taken):
            m.d.sync += [left.eq(self.words * parts), at.eq(self.address)]
        with m.Elif(sent):
            m.d.sync += [left.eq(left - dut.o.p.units), at.eq(at + dut.o.p.units * unit)]
        offer_stands(m, dut.o.valid, dut.o.ready, dut.o.payload.as_value(), "burst")
        with m.If(dut.o.valid):
            check_burst(m, arch, dut.o.p.address, dut.o.p.units * (unit // arch.bus_bytes))
            m.d.comb += [
                Assert(dut.o.p.address == at), Assert(dut.o.p.units <= left),
                Assert(dut.o.p.last == (dut.o.p.units == left)),
            ]
        return m


class ReadHarness(wiring.Component):
    """AR and R; two clients get exactly their own words, in order, whatever they refuse.

    The memory holds the number of every beat.  A FIFO that took more than it has room for, a
    credit below zero, would lose words.
    """

    def __init__(self, module=read_master, arch=SMALL):
        self._module, self._arch = module, arch
        super().__init__({
            **{f"{name}_{what}": In(bits) for name in "ab" for what, bits in (
                ("valid", 1), ("address", _FREE), ("words", 3), ("ready", 1))},
            "arready": In(1), "answer": In(1), "stop": In(1),
        })

    def elaborate(self, _platform):
        m, arch = Module(), self._arch
        m.submodules.dut = dut = self._module.ReadMaster(arch, clients={"a": _FIFO, "b": _FIFO})
        axi, beat_bits = dut.axi, (arch.bus_bytes - 1).bit_length()
        size = 8 * arch.bus_bytes
        m.d.comb += [
            axi.arready.eq(self.arready), dut.stop.eq(self.stop), dut.window.limit.eq(~0),
        ]
        for name in "ab":
            self._client(m, getattr(dut, name), name, beat_bits, size)
        asked = axi.arvalid & axi.arready
        # The memory: bursts in order, beats whenever it likes.
        beat, last = Signal(8), Signal()
        given = Signal()
        ledger = Ledger(m, "reads", ADDRESS_BITS + 8, arch.outstanding, asked,
                        Cat(axi.arlen, axi.araddr), given & last)
        m.d.comb += [
            given.eq(self.answer & (ledger.count != 0)), last.eq(beat == ledger.head[:8]),
            axi.rvalid.eq(given), axi.rlast.eq(last),
            axi.rdata.eq((ledger.head[8:] >> beat_bits) + beat),
            Assert(axi.rready),
            Assert(~dut.idle | (~axi.arvalid & (ledger.count == 0))),
        ]
        with m.If(given):
            m.d.sync += beat.eq(beat + 1)
            with m.If(last):
                m.d.sync += beat.eq(0)
        offer_stands(m, axi.arvalid, axi.arready, Cat(axi.araddr, axi.arlen), "ar")
        stopped = past(m, dut.stop, "stop")
        with m.If(axi.arvalid):
            check_burst(m, arch, axi.araddr, axi.arlen + 1)
            m.d.comb += Assert(~stopped | past(m, axi.arvalid, "arvalid"))
        return m

    def _client(self, m, port, name, beat_bits, size):
        """One request, of words that are counted as they come."""
        free = {what: getattr(self, f"{name}_{what}")
                for what in ("valid", "address", "words", "ready")}
        asked = Signal(name=f"{name}_asked")
        at, left = Signal(ADDRESS_BITS, name=f"{name}_at"), Signal(3, name=f"{name}_left")
        m.d.comb += [
            port.request.valid.eq(free["valid"] & ~asked),
            port.request.p.address.eq(free["address"]), port.request.p.words.eq(free["words"]),
            port.data.ready.eq(free["ready"]),
            Assume(free["address"][:2] == 0), Assume(free["words"] <= _WORDS),
        ]
        with m.If(port.request.valid & port.request.ready):
            m.d.sync += [asked.eq(1), at.eq(free["address"]), left.eq(free["words"])]
        with m.If(port.data.valid):
            first = at >> beat_bits
            word = Cat((first + i)[:size] for i in range(self._arch.depth * 8 // size))
            m.d.comb += [Assert(left != 0), Assert(port.data.payload == word)]
            with m.If(port.data.ready):
                m.d.sync += [at.eq(at + self._arch.depth), left.eq(left - 1)]
        offer_stands(m, port.data.valid, port.data.ready, port.data.payload, f"{name}_data")


class WriteHarness(wiring.Component):
    """AW, W and B; the words sent are those that were given, WLAST where AWLEN says."""

    def __init__(self, module=write_master, arch=SMALL):
        self._module, self._arch = module, arch
        super().__init__({
            "valid": In(1), "address": In(_FREE), "words": In(3), "data_valid": In(1),
            "awready": In(1), "wready": In(1), "answer": In(1), "stop": In(1),
        })

    def elaborate(self, _platform):
        m, arch = Module(), self._arch
        m.submodules.dut = dut = self._module.WriteMaster(arch, fifo_words=_FIFO)
        axi, client = dut.axi, dut.client
        beats_a_word = arch.depth // arch.bus_bytes
        asked, given, sent = Signal(), Signal(3), Signal(8)
        m.d.comb += [
            client.request.valid.eq(self.valid & ~asked),
            client.request.p.address.eq(self.address), client.request.p.words.eq(self.words),
            client.data.valid.eq(self.data_valid & (given < _WORDS)),
            # Word n holds the numbers of its beats.
            client.data.payload.eq(Cat(
                (given * beats_a_word + i) | Const(0, 8 * arch.bus_bytes)
                for i in range(beats_a_word)
            )),
            axi.awready.eq(self.awready), axi.wready.eq(self.wready), dut.stop.eq(self.stop),
            dut.window.limit.eq(~0),
            Assume(self.address[:2] == 0), Assume(self.words <= _WORDS),
            Assert(axi.bready), Assert(axi.wstrb.all()),
        ]
        with m.If(client.request.valid & client.request.ready):
            m.d.sync += asked.eq(1)
        m.d.sync += given.eq(given + (client.data.valid & client.data.ready))
        offered = Signal()
        m.d.sync += offered.eq(axi.awvalid & ~axi.awready)
        announces = axi.awvalid & ~offered
        moved = axi.wvalid & axi.wready
        # Announced and not sent; sent and not answered.
        beat, answered = Signal(8), Signal()
        sending = Ledger(m, "sending", 8, arch.outstanding, announces, axi.awlen, moved & axi.wlast)
        m.d.comb += answered.eq(self.answer)
        accepted, finished, answers = Signal(4), Signal(4), Signal(4)
        m.d.sync += [
            accepted.eq(accepted + (axi.awvalid & axi.awready)),
            finished.eq(finished + (moved & axi.wlast)),
            answers.eq(answers + axi.bvalid),
        ]
        # A response belongs to a burst whose address and data were taken.
        m.d.comb += [
            axi.bvalid.eq(answered & (answers != accepted) & (answers != finished)),
            Assert(~dut.idle | (~axi.awvalid & (answers == accepted))),
        ]
        offer_stands(m, axi.awvalid, axi.awready, Cat(axi.awaddr, axi.awlen), "aw")
        offer_stands(m, axi.wvalid, axi.wready, Cat(axi.wdata, axi.wlast), "w")
        with m.If(axi.awvalid):
            check_burst(m, arch, axi.awaddr, axi.awlen + 1)
        with m.If(axi.wvalid):
            m.d.comb += [
                Assert(sending.count != 0), Assert(axi.wlast == (beat == sending.head)),
                Assert(axi.wdata == sent[: 8 * arch.bus_bytes]),
            ]
        with m.If(moved):
            m.d.sync += [beat.eq(beat + 1), sent.eq(sent + 1)]
            with m.If(axi.wlast):
                m.d.sync += beat.eq(0)
        stopped = past(m, dut.stop, "stop")
        m.d.comb += Assert(~(stopped & announces))
        # ``done`` once, when every beat is answered.
        total, done = Signal(8), Signal(2)
        with m.If(client.request.valid & client.request.ready):
            m.d.sync += total.eq(self.words * beats_a_word)
        m.d.sync += done.eq(done + client.done)
        m.d.comb += [
            Assert(done <= 1), Assert((done == 0) | ((sent == total) & (answers == finished))),
        ]
        return m
