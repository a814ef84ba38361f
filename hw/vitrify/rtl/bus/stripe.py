"""One wide AXI4 port over several narrow ones: stripes of memory behind each port in turn.

A burst becomes bursts of at most a stripe, every one on the port that its address names, and the
ports work at the same time.  None of them ever waits for another inside the memory system, where
ports may share a queue: reads begin when there is room for all their data (*credits*, ``rready``
is constant), writes when all their data are at hand.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import exact_log2

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.names import port_names

from .axi import Resp, axi4, drive_address

#: Stripes of a port whose data wait to be written.
_WRITES = 2


def port_arch(arch: ArchConfig) -> ArchConfig:
    """``arch`` as one of its ports sees it: a bus of ``port_bytes``."""
    return dataclasses.replace(arch, bus_bytes=arch.port_bytes, ports=1)


class Splitter(wiring.Component):
    """Cut bursts at multiples of a stripe.  A stripe every cycle, two cycles after its burst.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    i : In(stream): ``address``, ``len`` as AXI has it
    o : Out(stream): ``address``, ``port``, ``beats`` of the whole bus, ``last`` of its burst
    """

    i: Any
    o: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.beats = arch.stripe_beats
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "address": memmap.ADDRESS_BITS, "len": unsigned(8),
            }))),
            "o": Out(stream.Signature(data.StructLayout({
                "address": memmap.ADDRESS_BITS, "port": range(arch.ports),
                "beats": range(self.beats + 1), "last": unsigned(1),
            }))),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        beat_bits, low_bits = exact_log2(self.arch.bus_bytes), exact_log2(self.beats)
        address = Signal(memmap.ADDRESS_BITS - beat_bits, reset_less=True)  # in beats
        left, active, room, fits = Signal(9, reset_less=True), Signal(), Signal(9), Signal()
        m.d.comb += [
            room.eq(self.beats - address[:low_bits]), fits.eq(left <= room),
            self.i.ready.eq(~active),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(active & (~self.o.valid | self.o.ready)):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.p.address.eq(address << beat_bits),
                self.o.p.port.eq(address[low_bits:]),
                self.o.p.beats.eq(Mux(fits, left, room)),
                self.o.p.last.eq(fits),
                active.eq(~fits),
                address.eq(Cat(Const(0, low_bits), address[low_bits:] + 1)),
                left.eq(left - room),
            ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                address.eq(self.i.p.address >> beat_bits), left.eq(self.i.p.len + 1),
                active.eq(1),
            ]
        return m


class Striper(wiring.Component):
    """``arch.ports`` AXI4 ports that look like one of ``bus_bytes``.

    Order, data and responses are those of one port; an error of any stripe is an SLVERR of its
    burst's beat (read) or of the burst (write).  Writes carry whole beats: ``wstrb`` is taken for
    all ones.  Full rate both ways while every port moves a beat a cycle; a read takes 8 cycles
    longer, and its first stripe comes at the pace of its port.

    Parameters
    ----------
    arch : ArchConfig
        ``ports`` of 2 or more; each has up to ``outstanding`` stripes in flight.

    Members
    -------
    bus : In(axi4(arch))
    <port_names(arch)> : Out(axi4(port_arch(arch)))
    """

    bus: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        port = axi4(port_arch(arch))
        super().__init__({"bus": In(axi4(arch)), **{n: Out(port) for n in port_names(arch)}})

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        ports = [getattr(self, name) for name in port_names(self.arch)]
        for port in ports:
            for prefix in ("ar", "aw"):
                drive_address(m, port, prefix, port_arch(self.arch))
            m.d.comb += [port.rready.eq(1), port.bready.eq(1), port.wstrb.eq(~0)]
        self._read(m, ports)
        self._write(m, ports)
        return m

    def _split(self, m: Module, prefix: str) -> Any:
        """Stripes of the bus's address channel ``prefix``."""
        m.submodules[f"split_{prefix}"] = split = Splitter(self.arch)
        member = {name: getattr(self.bus, prefix + name) for name in
                  ("addr", "len", "valid", "ready")}
        m.d.comb += [
            split.i.p.address.eq(member["addr"]), split.i.p.len.eq(member["len"]),
            split.i.valid.eq(member["valid"]), member["ready"].eq(split.i.ready),
        ]
        return split.o

    def _announce(self, m: Module, port: Any, prefix: str, issue: Signal, stripe: Any) -> None:
        """Put ``stripe`` on an address channel of a port, which is free in a cycle with issue."""
        valid = getattr(port, f"{prefix}valid")
        with m.If(getattr(port, f"{prefix}ready")):
            m.d.sync += valid.eq(0)
        with m.If(issue):
            m.d.sync += valid.eq(1)
        with m.If(~valid):
            m.d.sync += [
                getattr(port, f"{prefix}addr").eq(stripe.address),
                getattr(port, f"{prefix}len").eq(stripe.beats * self.arch.ports - 1),
            ]

    # Reads -------------------------------------------------------------------------------
    def _read(self, m: Module, ports: list[Any]) -> None:
        arch, bus, per = self.arch, self.bus, self.arch.stripe_beats
        stripes = self._split(m, "ar")
        order = data.StructLayout({"port": range(arch.ports), "beats": range(per + 1),
                                   "last": unsigned(1)})
        m.submodules.read_order = orders = SyncFIFO(
            width=order.size, depth=arch.outstanding * arch.ports
        )
        entry, head = Signal(order), Signal(order)
        ready, pop = Signal(arch.ports), Signal()
        issue = Signal()
        m.d.comb += [
            issue.eq(stripes.valid & ready.bit_select(stripes.p.port, 1) & orders.w_rdy),
            stripes.ready.eq(issue), orders.w_en.eq(issue), orders.w_data.eq(entry),
            entry.port.eq(stripes.p.port), entry.beats.eq(stripes.p.beats),
            entry.last.eq(stripes.p.last), head.eq(orders.r_data),
        ]
        # Beats of the bus, with whether one of their parts failed.
        beats, there = [], []
        for i, port in enumerate(ports):
            mine, taken = Signal(name=f"read_issue{i}"), Signal(name=f"read_taken{i}")
            m.d.comb += [mine.eq(issue & (stripes.p.port == i)), taken.eq(pop & (head.port == i))]
            self._announce(m, port, "ar", mine, stripes.p)
            depth = max(2, arch.outstanding) * per
            free = Signal(range(depth + 1), init=depth, name=f"read_free{i}")
            room = Signal(name=f"read_room{i}")
            # A stripe every other cycle at most, hence the room may be a cycle old.
            m.d.sync += [
                free.eq(free + taken - Mux(mine, stripes.p.beats, 0)), room.eq(free >= per),
            ]
            m.d.comb += ready[i].eq(room & ~port.arvalid)
            width = 8 * arch.bus_bytes + 1
            m.submodules[f"read_data{i}"] = fifo = SyncFIFOBuffered(width=width, depth=depth + 1)
            self._gather(m, port, fifo, i)
            m.d.comb += fifo.r_en.eq(taken)
            beats.append(fifo.r_data)
            there.append(fifo.r_rdy)

        # In the order of the bursts.
        done = Signal(range(per + 1))
        beat, final = Signal(8 * arch.bus_bytes + 1), Signal()
        m.d.comb += [
            pop.eq(orders.r_rdy & Cat(there).bit_select(head.port, 1)
                   & (~bus.rvalid | bus.rready)),
            beat.eq(Array(beats)[head.port]), final.eq(done + 1 == head.beats),
            orders.r_en.eq(pop & final),
        ]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(~bus.rvalid | bus.rready):
            m.d.sync += [
                bus.rdata.eq(beat[1:]), bus.rresp.eq(Mux(beat[0], Resp.SLVERR, Resp.OKAY)),
                bus.rlast.eq(final & head.last),
            ]
        with m.If(pop):
            m.d.sync += [bus.rvalid.eq(1), done.eq(Mux(final, 0, done + 1))]

    def _gather(self, m: Module, port: Any, fifo: Any, number: int) -> None:
        """Beats of a port, joined to beats of the bus, into its FIFO."""
        count = self.arch.ports
        place = Signal(range(count), name=f"read_place{number}")
        word = Signal(8 * self.arch.bus_bytes, reset_less=True, name=f"read_word{number}")
        failed, whole = Signal(name=f"read_failed{number}"), Signal(name=f"read_whole{number}")
        m.d.sync += whole.eq(port.rvalid & (place == count - 1))
        with m.If(port.rvalid):
            m.d.sync += [
                word.eq(Cat(word, port.rdata)[len(port.rdata):]), place.eq(place + 1),
                failed.eq(port.rresp[1] | (failed & (place != 0))),
            ]
        m.d.comb += [fifo.w_en.eq(whole), fifo.w_data.eq(Cat(failed, word))]

    # Writes ------------------------------------------------------------------------------
    def _write(self, m: Module, ports: list[Any]) -> None:
        arch, bus, per = self.arch, self.bus, self.arch.stripe_beats
        stripes = self._split(m, "aw")
        depth = arch.outstanding * arch.ports
        route = data.StructLayout({"port": range(arch.ports), "beats": range(per + 1)})
        answer = data.StructLayout({"port": range(arch.ports), "last": unsigned(1)})
        m.submodules.write_route = routes = SyncFIFO(width=route.size, depth=4)
        m.submodules.write_order = answers = SyncFIFO(width=answer.size, depth=depth)
        to, owed = Signal(route), Signal(answer)
        listed = Signal(arch.ports)  # the port's list of addresses has room
        accept = Signal()
        m.d.comb += [
            accept.eq(stripes.valid & routes.w_rdy & answers.w_rdy
                      & listed.bit_select(stripes.p.port, 1)),
            stripes.ready.eq(accept), routes.w_en.eq(accept), answers.w_en.eq(accept),
            routes.w_data.eq(Cat(stripes.p.port, stripes.p.beats)),
            answers.w_data.eq(Cat(stripes.p.port, stripes.p.last)),
            to.eq(routes.r_data), owed.eq(answers.r_data),
        ]
        # The bus's beats go to the port of their stripe.
        room, done, push, final = Signal(arch.ports), Signal(range(per + 1)), Signal(), Signal()
        m.d.comb += [
            bus.wready.eq(routes.r_rdy & room.bit_select(to.port, 1)),
            push.eq(bus.wvalid & bus.wready), final.eq(done + 1 == to.beats),
            routes.r_en.eq(push & final),
        ]
        with m.If(push):
            m.d.sync += done.eq(Mux(final, 0, done + 1))
        told, failed = [], []
        for i, port in enumerate(ports):
            mine = Signal(name=f"write_mine{i}")
            m.d.comb += mine.eq(push & (to.port == i))
            m.submodules[f"write_port{i}"] = half = _WritePort(arch)
            m.d.comb += [
                half.stripe.p.address.eq(stripes.p.address),
                half.stripe.p.beats.eq(stripes.p.beats),
                half.stripe.valid.eq(accept & (stripes.p.port == i)),
                listed[i].eq(half.stripe.ready),
                half.data.payload.eq(bus.wdata), half.data.valid.eq(mine),
                room[i].eq(half.data.ready), half.complete.eq(mine & final),
            ]
            self._announce(m, port, "aw", half.issue, half.announced)
            m.d.comb += [
                half.free.eq(~port.awvalid), port.wdata.eq(half.wdata), port.wvalid.eq(half.wvalid),
                port.wlast.eq(half.wlast), half.wready.eq(port.wready),
            ]
            # Its responses wait here for those of older stripes.
            m.submodules[f"write_told{i}"] = responses = SyncFIFO(width=1, depth=depth)
            m.d.comb += [
                responses.w_en.eq(port.bvalid), responses.w_data.eq(port.bresp[1]),
                responses.r_en.eq(answers.r_en & (owed.port == i)),
            ]
            told.append(responses.r_rdy)
            failed.append(responses.r_data)
        wrong, kept = Signal(), Signal()
        m.d.comb += [
            wrong.eq(Cat(failed).bit_select(owed.port, 1) | kept),
            answers.r_en.eq(answers.r_rdy & Cat(told).bit_select(owed.port, 1)
                            & (~bus.bvalid | bus.bready)),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(answers.r_en):
            m.d.sync += [
                kept.eq(wrong & ~owed.last), bus.bvalid.eq(owed.last),
                bus.bresp.eq(Mux(wrong, Resp.SLVERR, Resp.OKAY)),
            ]


class _WritePort(wiring.Component):
    """Stripes for one port, their data, and when both may go.

    ``complete`` comes with the last beat of a stripe; ``issue`` announces ``announced`` in a cycle
    with ``free``.
    """

    stripe: Any
    data: Any
    complete: Signal
    free: Signal
    issue: Signal
    announced: Any
    wdata: Signal
    wvalid: Signal
    wlast: Signal
    wready: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self.beats = arch.stripe_beats
        burst = data.StructLayout(
            {"address": memmap.ADDRESS_BITS, "beats": range(self.beats + 1)}
        )
        super().__init__({
            "stripe": In(stream.Signature(burst)),
            "data": In(stream.Signature(unsigned(8 * arch.bus_bytes))), "complete": In(1),
            "free": In(1), "issue": Out(1), "announced": Out(burst),
            "wdata": Out(8 * arch.port_bytes), "wvalid": Out(1), "wlast": Out(1), "wready": In(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        count, depth = self.arch.ports, max(_WRITES * self.beats, 4)
        burst = self.announced.shape()
        m.submodules.list = listed = SyncFIFO(width=burst.size, depth=4)
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8 * self.arch.bus_bytes, depth=depth)
        m.submodules.sending = sending = SyncFIFO(width=len(self.announced.beats), depth=4)
        connect(m, wiring.flipped(self.data), fifo.w_stream)
        whole = Signal(range(depth + 2))  # stripes with all their data
        m.d.comb += [
            listed.w_data.eq(self.stripe.p), listed.w_en.eq(self.stripe.valid),
            self.stripe.ready.eq(listed.w_rdy), self.announced.eq(listed.r_data),
            self.issue.eq(listed.r_rdy & self.free & (whole != 0) & sending.w_rdy),
            listed.r_en.eq(self.issue),
            sending.w_en.eq(self.issue), sending.w_data.eq(self.announced.beats),
        ]
        m.d.sync += whole.eq(whole + self.complete - self.issue)

        word = Signal(8 * self.arch.bus_bytes, reset_less=True)
        place, done, last = Signal(range(count)), Signal(range(self.beats + 1)), Signal()
        m.d.comb += [
            self.wdata.eq(word), self.wlast.eq(last & (place == count - 1)),
        ]
        with m.If(~self.wvalid | self.wready):
            with m.If(self.wvalid & (place != count - 1)):
                m.d.sync += [place.eq(place + 1), word.eq(word >> len(self.wdata))]
            with m.Else():
                final = Signal()
                m.d.comb += final.eq(done + 1 == sending.r_data)
                m.d.sync += [
                    self.wvalid.eq(0), place.eq(0), word.eq(fifo.r_data), last.eq(final),
                ]
                with m.If(fifo.r_rdy & sending.r_rdy):
                    m.d.comb += [fifo.r_en.eq(1), sending.r_en.eq(final)]
                    m.d.sync += [self.wvalid.eq(1), done.eq(Mux(final, 0, done + 1))]
        return m
