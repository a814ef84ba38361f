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
from .bursts import BURST_BEATS, OUTSTANDING, BurstSplitter, beats_per_word, burst_words
from .window import WINDOW, inside

#: What an error pipe carries: the address of the burst that failed.
BUS_ERROR = data.StructLayout({"address": memmap.ADDRESS_BITS})


class _Client(wiring.Component):
    """One client's bursts and its FIFO.

    ``ready`` says that ``address`` and ``words`` are a burst for which there is room; it is
    taken in a cycle with ``issue``.  ``write`` puts ``word`` into the FIFO.  A burst outside
    ``window`` is never ready; ``refused`` is set from the cycle after it appears.
    """

    request: Any
    data: Any
    ready: Signal
    issue: Signal
    address: Signal
    words: Signal
    write: Signal
    word: Signal
    window: Any
    refused: Signal

    def __init__(self, arch: ArchConfig, *, fifo_words: int, burst_beats: int) -> None:
        self.arch = arch
        self.fifo_words = fifo_words
        self.burst_words = burst_words(arch, fifo_words, burst_beats)
        super().__init__({
            "request": In(stream.Signature(MEMORY_REQUEST)),
            "data": Out(stream.Signature(unsigned(8 * arch.depth))),
            "ready": Out(1), "issue": In(1),
            "address": Out(memmap.ADDRESS_BITS), "words": Out(range(self.burst_words + 1)),
            "write": In(1), "word": In(8 * arch.depth),
            "window": In(WINDOW), "refused": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.bursts = bursts = BurstSplitter(self.arch, words=self.burst_words)
        # One entry of the FIFO is its output register: the memory is a power of two.
        m.submodules.fifo = fifo = SyncFIFOBuffered(
            width=8 * self.arch.depth, depth=self.fifo_words + 1
        )
        connect(m, flipped(self.request), bursts.i)
        # The FIFO lies by its block RAM, who takes its words elsewhere.
        m.submodules.words = words = Skid(unsigned(8 * self.arch.depth))
        connect(m, fifo.r_stream, words.i)
        connect(m, words.o, flipped(self.data))
        m.d.comb += [fifo.w_data.eq(self.word), fifo.w_en.eq(self.write)]

        # Words that are neither in the FIFO nor promised to a burst in flight.
        free = Signal(range(self.fifo_words + 1), init=self.fifo_words)
        taken = words.i.valid & words.i.ready
        allowed = Signal()
        m.d.comb += allowed.eq(inside(self.window, bursts.o.p.address))
        m.d.sync += [
            self.refused.eq(bursts.o.valid & ~allowed),
            free.eq(free + taken - Mux(self.issue, bursts.o.p.words, 0)),
            self.ready.eq(
                bursts.o.valid & (free >= bursts.o.p.words) & allowed & ~self.issue
            ),
        ]
        m.d.comb += [
            bursts.o.ready.eq(self.issue),
            self.address.eq(bursts.o.p.address),
            self.words.eq(bursts.o.p.words),
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
    burst_beats : int
        Longest burst in beats, a power of two.
    outstanding : int
        Bursts in flight at once.

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
        burst_beats: int = BURST_BEATS,
        outstanding: int = OUTSTANDING,
    ) -> None:
        self.arch = arch
        self.clients = dict(clients)
        self.burst_beats = burst_beats
        self.outstanding = outstanding
        super().__init__({
            "axi": Out(axi4_read(arch)),
            **{name: In(memory_read(arch)) for name in self.clients},
            "stop": In(1), "idle": Out(1), "beat": Out(1), "error": Out(pipe(BUS_ERROR)),
            "window": In(WINDOW), "refused": Out(pipe(BUS_ERROR)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        axi, count = self.axi, len(self.clients)
        bpw = beats_per_word(self.arch)
        drive_address(m, axi, "ar", self.arch)
        m.d.comb += axi.rready.eq(1)

        clients = []
        for name, fifo_words in self.clients.items():
            client = _Client(self.arch, fifo_words=fifo_words, burst_beats=self.burst_beats)
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
        m.submodules.flights = flights = SyncFIFO(width=flight.size, depth=self.outstanding)
        entry, head = Signal(flight), Signal(flight)
        m.d.comb += [flights.w_data.eq(entry), head.eq(flights.r_data)]

        # Issue: every other cycle at most, so that arready reaches no further than arvalid, and
        # the room in the list may be a cycle old.
        issue, room = Signal(), Signal()
        m.d.sync += room.eq(flights.w_rdy)
        requests = Cat(c.ready for c in clients)
        _round_robin(m, requests, entry.client, advance=issue)
        m.d.comb += [
            issue.eq(requests.any() & ~axi.arvalid & room & ~self.stop),
            flights.w_en.eq(issue),
            entry.address.eq(Array([c.address for c in clients])[entry.client]),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += axi.arvalid.eq(1)
        with m.If(~axi.arvalid):
            words = Array([c.words for c in clients])[entry.client]
            m.d.sync += [axi.araddr.eq(entry.address), axi.arlen.eq(words * bpw - 1)]
        for i, client in enumerate(clients):
            m.d.comb += client.issue.eq(issue & (entry.client == i))

        # Receive, assemble, deliver.
        beat = Signal(8 * self.arch.bus_bytes, reset_less=True)
        target = Signal(range(count), reset_less=True)
        m.d.sync += [
            self.beat.eq(axi.rvalid), beat.eq(axi.rdata), target.eq(head.client),
            self.error.valid.eq(axi.rvalid & axi.rresp[1]),
            self.error.p.address.eq(head.address),
        ]
        m.d.comb += flights.r_en.eq(axi.rvalid & axi.rlast)

        word = Signal(8 * self.arch.depth, reset_less=True)
        complete = Signal()
        if bpw == 1:
            m.d.comb += complete.eq(self.beat)
        else:
            place = Signal(range(bpw))
            m.d.sync += place.eq(place + self.beat)
            m.d.comb += complete.eq(self.beat & (place == bpw - 1))
        with m.If(self.beat):
            m.d.sync += word.eq(Cat(word, beat)[len(beat):])
        for i, client in enumerate(clients):
            m.d.sync += client.write.eq(complete & (target == i))
            m.d.comb += client.word.eq(word)

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
