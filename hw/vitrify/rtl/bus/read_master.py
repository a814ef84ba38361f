"""AXI4 read master: several clients, each with its own FIFO, share one bus at full rate.

A client's bursts are issued only when its FIFO has room for all their words (*credits*), so data
are never refused (``rready`` is constant) and a slow client cannot hold up the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import MEMORY_REQUEST, memory_read, pipe
from vitrify.rtl.lib.skid import Skid

from .axi import axi4_read, drive_address
from .bursts import BurstSplitter, burst_units, unit_bytes
from .resize import Gather
from .window import WINDOW, inside

#: What an error pipe carries: the address of the burst that failed.
BUS_ERROR = data.StructLayout({"address": memmap.ADDRESS_BITS})


class _Client(wiring.Component):
    """One client's bursts and its FIFO.

    ``ready`` says that ``address`` and ``units`` are a burst for which there is room; it is
    taken in a cycle with ``issue``.  ``write`` puts ``unit`` into the FIFO.  A burst outside
    ``window`` is never ready; ``refused`` is set from the cycle after it appears.
    """

    request: Any
    data: Any
    ready: Signal
    issue: Signal
    address: Signal
    units: Signal
    write: Signal
    unit: Signal
    window: Any
    refused: Signal

    def __init__(self, arch: ArchConfig, *, fifo_words: int, burst_beats: int) -> None:
        self.arch = arch
        self.unit_bytes = unit_bytes(arch, burst_beats)
        self.fifo_units = fifo_words * arch.depth // self.unit_bytes
        self.burst_units = burst_units(arch, fifo_words, burst_beats)
        super().__init__({
            "request": In(stream.Signature(MEMORY_REQUEST)),
            "data": Out(stream.Signature(unsigned(8 * arch.depth))),
            "ready": Out(1), "issue": In(1),
            "address": Out(memmap.ADDRESS_BITS), "units": Out(range(self.burst_units + 1)),
            "write": In(1), "unit": In(8 * self.unit_bytes),
            "window": In(WINDOW), "refused": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.bursts = bursts = BurstSplitter(
            self.arch, units=self.burst_units, unit=self.unit_bytes
        )
        # One entry of the FIFO is its output register: the memory is a power of two.
        m.submodules.fifo = fifo = SyncFIFOBuffered(
            width=8 * self.unit_bytes, depth=self.fifo_units + 1
        )
        connect(m, flipped(self.request), bursts.i)
        # The FIFO lies by its block RAM, who takes its words elsewhere.
        m.submodules.taken = skid = Skid(unsigned(8 * self.unit_bytes))
        connect(m, fifo.r_stream, skid.i)
        parts = self.arch.depth // self.unit_bytes
        if parts > 1:
            m.submodules.gather = gather = Gather(8 * self.unit_bytes, parts)
            connect(m, skid.o, gather.i)
            connect(m, gather.o, flipped(self.data))
        else:
            connect(m, skid.o, flipped(self.data))
        m.d.comb += [fifo.w_data.eq(self.unit), fifo.w_en.eq(self.write)]

        # Units that are neither in the FIFO nor promised to a burst in flight.
        free = Signal(range(self.fifo_units + 1), init=self.fifo_units)
        taken = skid.i.valid & skid.i.ready
        allowed = Signal()
        m.d.comb += allowed.eq(inside(self.window, bursts.o.p.address))
        m.d.sync += [
            self.refused.eq(bursts.o.valid & ~allowed),
            free.eq(free + taken - Mux(self.issue, bursts.o.p.units, 0)),
            self.ready.eq(
                bursts.o.valid & (free >= bursts.o.p.units) & allowed & ~self.issue
            ),
        ]
        m.d.comb += [
            bursts.o.ready.eq(self.issue),
            self.address.eq(bursts.o.p.address),
            self.units.eq(bursts.o.p.units),
        ]
        return m


class ReadMaster(wiring.Component):
    """AXI4 read master for ``memory_read`` clients.

    Bursts are at most ``burst_beats`` beats, aligned, and served round-robin; words come out
    little endian (the first beat is the low end).  A beat reaches its client's stream five cycles
    after its bus cycle.  While ``stop`` is set no new burst begins; those in flight arrive.

    Parameters
    ----------
    arch : ArchConfig
    clients : Mapping[str, int]
        Name of each client and the depth of its FIFO in words of K bytes (at least 2, a power of
        two to fill its memory).  To keep the bus busy alone, a client needs a FIFO of at least
        the memory's latency.
        ``burst_beats`` and ``outstanding`` are those of ``arch``.

    Members
    -------
    axi : Out(axi4_read(arch))
    <client> : In(memory_read(arch)), for every name in ``clients``
    stop : In(1)
    idle : Out(1)
        No burst is announced or in flight; stays so while ``stop`` is set.
    beat : Out(1)
        Pulse for every beat received.
    error : Out(pipe(BUS_ERROR))
        SLVERR or DECERR in the burst at this address.
    window : In(WINDOW)
    refused : Out(pipe(BUS_ERROR))
        The burst at this address lies outside the window; held until reset, as its client is.
    """

    axi: Any
    stop: Signal
    idle: Signal
    beat: Signal
    error: Any
    window: Any
    refused: Any

    def __init__(
        self,
        arch: ArchConfig,
        *,
        clients: Mapping[str, int],
    ) -> None:
        self.arch = arch
        self.clients = dict(clients)
        super().__init__({
            "axi": Out(axi4_read(arch)),
            **{name: In(memory_read(arch)) for name in self.clients},
            "stop": In(1), "idle": Out(1), "beat": Out(1), "error": Out(pipe(BUS_ERROR)),
            "window": In(WINDOW), "refused": Out(pipe(BUS_ERROR)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        axi, count = self.axi, len(self.clients)
        unit = unit_bytes(self.arch, self.arch.burst_beats)
        beats = unit // self.arch.bus_bytes
        drive_address(m, axi, "ar", self.arch)
        m.d.comb += axi.rready.eq(1)

        clients = []
        for name, fifo_words in self.clients.items():
            client = _Client(self.arch, fifo_words=fifo_words, burst_beats=self.arch.burst_beats)
            m.submodules[name] = client
            connect(m, flipped(getattr(self, name).request), client.request)
            connect(m, client.data, flipped(getattr(self, name).data))
            m.d.comb += client.window.eq(self.window)
            with m.If(client.refused):
                m.d.sync += [
                    self.refused.valid.eq(1), self.refused.p.address.eq(client.address),
                ]
            clients.append(client)

        # Which client, and where, for every burst in flight.
        flight = data.StructLayout({"client": range(count), "address": memmap.ADDRESS_BITS})
        m.submodules.flights = flights = SyncFIFO(width=flight.size, depth=self.arch.outstanding)
        entry, head = Signal(flight), Signal(flight)
        # A signal of its own: where fields of one signal depend on each other, event-driven
        # simulators of the emitted Verilog go round in circles.
        client_index = Signal(range(count))
        m.d.comb += [
            entry.client.eq(client_index), flights.w_data.eq(entry), head.eq(flights.r_data),
        ]

        # Issue: every other cycle at most, so that arready reaches no further than arvalid, and
        # the room in the list may be a cycle old.
        issue, room = Signal(), Signal()
        m.d.sync += room.eq(flights.w_rdy)
        requests = Cat(c.ready for c in clients)
        _round_robin(m, requests, client_index, advance=issue)
        m.d.comb += [
            issue.eq(requests.any() & ~axi.arvalid & room & ~self.stop),
            flights.w_en.eq(issue),
            entry.address.eq(Array([c.address for c in clients])[client_index]),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += axi.arvalid.eq(1)
        with m.If(~axi.arvalid):
            units = Array([c.units for c in clients])[client_index]
            m.d.sync += [axi.araddr.eq(entry.address), axi.arlen.eq(units * beats - 1)]
        for i, client in enumerate(clients):
            m.d.comb += client.issue.eq(issue & (client_index == i))

        # Receive, assemble, deliver.
        beat = Signal(8 * self.arch.bus_bytes, reset_less=True)
        target = Signal(range(count), reset_less=True)
        m.d.sync += [
            self.beat.eq(axi.rvalid), beat.eq(axi.rdata), target.eq(head.client),
            self.error.valid.eq(axi.rvalid & axi.rresp[1]),
            self.error.p.address.eq(head.address),
        ]
        m.d.comb += flights.r_en.eq(axi.rvalid & axi.rlast)

        data_unit = Signal(8 * unit, reset_less=True)
        complete = Signal()
        if beats == 1:
            m.d.comb += complete.eq(self.beat)
        else:
            place = Signal(range(beats))
            m.d.sync += place.eq(place + self.beat)
            m.d.comb += complete.eq(self.beat & (place == beats - 1))
        with m.If(self.beat):
            m.d.sync += data_unit.eq(Cat(data_unit, beat)[len(beat):])
        for i, client in enumerate(clients):
            m.d.sync += client.write.eq(complete & (target == i))
            m.d.comb += client.unit.eq(data_unit)

        m.d.comb += self.idle.eq(~(axi.arvalid | flights.r_rdy | self.beat))
        return m


def _round_robin(m: Module, requests: Value, index: Value, *, advance: Value) -> None:
    """Drive ``index`` with the first request behind the one of the last ``advance``."""
    count = len(requests)
    last = Signal(range(count))
    with m.If(advance):
        m.d.sync += last.eq(index)
    with m.Switch(last):
        for i in range(count):
            with m.Case(i):
                for j in reversed([*range(i + 1, count), *range(i + 1)]):
                    with m.If(requests[j]):
                        m.d.comb += index.eq(j)
