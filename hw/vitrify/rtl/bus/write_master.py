"""AXI4 write master: one client, bursts that are announced only when their data are at hand."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import memory_write, pipe
from vitrify.rtl.lib.skid import Skid

from .axi import axi4_write, drive_address
from .bursts import BurstSplitter, burst_units, unit_bytes
from .read_master import BUS_ERROR
from .resize import Scatter
from .window import WINDOW, inside

#: Units that may be on their way to the bus: more than a permission takes to get there and back.
_PERMITS = 8


class WriteMaster(wiring.Component):
    """AXI4 write master for a ``memory_write`` client.

    A burst begins when all its words are in the FIFO: it never blocks the bus, and can always be
    finished.  Full bus rate from the second burst on.  While ``stop`` is set no new burst begins;
    those announced are completed.

    Parameters
    ----------
    arch : ArchConfig
    fifo_words : int
        Words of K bytes in the FIFO; two bursts keep the bus busy.
        ``burst_beats`` and ``outstanding`` (bursts without a response) are those of ``arch``.

    Members
    -------
    axi : Out(axi4_write(arch))
    client : In(memory_write(arch))
        ``done`` pulses once a request, in order, when all its responses are in.
    stop : In(1)
    idle : Out(1)
        No burst is announced or without response; stays so while ``stop`` is set.
    beat : Out(1)
        Pulse for every beat sent.
    error : Out(pipe(BUS_ERROR))
        SLVERR or DECERR for the burst at this address.
    window : In(WINDOW)
    refused : Out(pipe(BUS_ERROR))
        The burst at this address lies outside the window; held until reset, as the client is.
    """

    axi: Any
    client: Any
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
        fifo_words: int,
    ) -> None:
        self.arch = arch
        self.unit_bytes = unit_bytes(arch, arch.burst_beats)
        self.fifo_units = fifo_words * arch.depth // self.unit_bytes
        self.burst_units = burst_units(arch, fifo_words, arch.burst_beats)
        super().__init__({
            "axi": Out(axi4_write(arch)), "client": In(memory_write(arch)),
            "stop": In(1), "idle": Out(1), "beat": Out(1), "error": Out(pipe(BUS_ERROR)),
            "window": In(WINDOW), "refused": Out(pipe(BUS_ERROR)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        axi, client = self.axi, self.client
        drive_address(m, axi, "aw", self.arch)
        m.d.comb += axi.bready.eq(1)

        m.submodules.bursts = bursts = BurstSplitter(
            self.arch, units=self.burst_units, unit=self.unit_bytes
        )
        m.submodules.fifo = fifo = SyncFIFOBuffered(
            width=8 * self.unit_bytes, depth=self.fifo_units + 1
        )
        connect(m, flipped(client.request), bursts.i)
        parts = self.arch.depth // self.unit_bytes
        if parts > 1:
            m.submodules.scatter = scatter = Scatter(8 * self.unit_bytes, parts)
            connect(m, flipped(client.data), scatter.i)
            connect(m, scatter.o, fifo.w_stream)
        else:
            connect(m, flipped(client.data), fifo.w_stream)
        # The FIFO lies by its block RAM, what sends by the bus's pins.
        m.submodules.units = units = Skid(unsigned(8 * self.unit_bytes))
        connect(m, fifo.r_stream, units.i)

        # Bursts whose data are still to be sent, and bursts without a response.
        m.submodules.sending = sending = SyncFIFO(
            width=len(bursts.o.p.units), depth=self.arch.outstanding
        )
        flight = data.StructLayout({"address": memmap.ADDRESS_BITS, "last": unsigned(1)})
        m.submodules.flights = flights = SyncFIFO(width=flight.size, depth=self.arch.outstanding)
        entry, head = Signal(flight), Signal(flight)
        m.d.comb += [flights.w_data.eq(entry), head.eq(flights.r_data)]

        # Announce.  ``stored``: units in FIFO and skid that belong to no announced burst, without
        # the one that has ``entered`` last.
        stored, entered = Signal(range(self.fifo_units + 4)), Signal()
        # Every other cycle at most, hence the room in the list may be a cycle old.
        ready, room, issue, allowed = Signal(), Signal(), Signal(), Signal()
        m.d.sync += room.eq(flights.w_rdy)
        m.d.comb += [
            allowed.eq(inside(self.window, bursts.o.p.address)),
            issue.eq(ready & ~axi.awvalid & room & ~self.stop),
            bursts.o.ready.eq(issue),
            sending.w_data.eq(bursts.o.p.units), sending.w_en.eq(issue),
            entry.address.eq(bursts.o.p.address), entry.last.eq(bursts.o.p.last),
            flights.w_en.eq(issue),
        ]
        m.d.sync += [
            entered.eq(fifo.w_en & fifo.w_rdy),
            stored.eq(stored + entered - Mux(issue, bursts.o.p.units, 0)),
            ready.eq(bursts.o.valid & (stored >= bursts.o.p.units) & allowed & ~issue),
            self.refused.valid.eq(bursts.o.valid & ~allowed),
            self.refused.p.address.eq(bursts.o.p.address),
        ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(issue):
            m.d.sync += axi.awvalid.eq(1)
        with m.If(~axi.awvalid):
            m.d.sync += [
                axi.awaddr.eq(bursts.o.p.address),
                axi.awlen.eq(bursts.o.p.units * (self.unit_bytes // self.arch.bus_bytes) - 1),
            ]

        self._send(m, units.o, self._permit(m, sending.r_stream))

        m.d.comb += flights.r_en.eq(axi.bvalid)
        m.d.sync += [
            client.done.eq(axi.bvalid & head.last),
            self.error.valid.eq(axi.bvalid & axi.bresp[1]),
            self.error.p.address.eq(head.address),
            self.beat.eq(axi.wvalid & axi.wready),
        ]
        m.d.comb += self.idle.eq(~(axi.awvalid | flights.r_rdy))
        return m

    def _permit(self, m: Module, counts: stream.Interface) -> stream.Interface:
        """For each unit of the announced bursts, of so many units each, whether it is the last.

        What announces bursts lies by the client, what sends them by the units, maybe at the other
        end of the chip.  Between them there are registers only, and no answer but what was taken.
        """
        m.submodules.permits = permits = SyncFIFO(width=1, depth=_PERMITS)
        room = Signal(range(_PERMITS + 1), init=_PERMITS)
        before = Signal(range(self.burst_units))  # units before this one in the burst
        give, last, given, given_last, taken = (Signal() for _ in range(5))
        m.d.comb += [
            give.eq(counts.valid & (room != 0)), last.eq(before + 1 == counts.payload),
            counts.ready.eq(give & last),
            permits.w_en.eq(given), permits.w_data.eq(given_last),
        ]
        m.d.sync += [
            given.eq(give), given_last.eq(last), taken.eq(permits.r_en & permits.r_rdy),
            room.eq(room + taken - give),
        ]
        with m.If(give):
            m.d.sync += before.eq(Mux(last, 0, before + 1))
        return permits.r_stream

    def _send(self, m: Module, units: stream.Interface, permits: stream.Interface) -> None:
        """Serialise the units that may go into beats."""
        axi, per_unit = self.axi, self.unit_bytes // self.arch.bus_bytes
        unit = Signal(8 * self.unit_bytes, reset_less=True)
        place = Signal(range(per_unit))             # beat within the unit
        last_beat, last_unit = Signal(), Signal()
        # wready reaches no further than this.
        m.submodules.beats = beats = Skid(data.StructLayout({"data": axi.wdata.shape(), "last": 1}))
        valid = beats.i.valid
        m.d.comb += [
            axi.wvalid.eq(beats.o.valid), beats.o.ready.eq(axi.wready), axi.wstrb.eq(~0),
            axi.wdata.eq(beats.o.payload.data), axi.wlast.eq(beats.o.payload.last),
            beats.i.payload.data.eq(unit), beats.i.payload.last.eq(last_beat & last_unit),
            last_beat.eq(place == per_unit - 1),
        ]
        with m.If(~valid | beats.i.ready):
            with m.If(valid & ~last_beat):
                m.d.sync += [
                    place.eq(place + 1),
                    unit.eq(unit >> (8 * self.arch.bus_bytes)),
                ]
            with m.Else():
                m.d.sync += [
                    valid.eq(0), place.eq(0), unit.eq(units.payload), last_unit.eq(permits.payload),
                ]
                # Every unit of an announced burst is on its way to here.
                with m.If(units.valid & permits.valid):
                    m.d.comb += [units.ready.eq(1), permits.ready.eq(1)]
                    m.d.sync += valid.eq(1)
