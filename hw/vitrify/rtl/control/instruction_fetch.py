"""Instructions from DRAM, prefetched in small chunks so that little is thrown away at the end."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import INSTRUCTION_BYTES
from vitrify.rtl.bus.csr import REGISTER_BITS
from vitrify.rtl.interfaces import memory_read

INSTRUCTION_BITS = 8 * INSTRUCTION_BYTES
#: Instructions of one memory request, a power of two; two requests are in flight.
CHUNK = 4


class InstructionFetch(wiring.Component):
    """Stream the instructions of a program.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    start : In(1)
        Begin with ``count`` instructions at ``base``; only while ``idle``.
    base : In(ADDRESS_BITS)
        Byte address, a multiple of ``ALIGNMENT``.
    count : In(32)
    stop : In(1)
        Pulse: forget what is left; ``idle`` follows when the memory has answered.
    memory : Out(memory_read(arch))
    o : Out(stream.Signature(512))
    exhausted : Out(1)
        All ``count`` instructions were taken.
    idle : Out(1)
        Nothing offered, requested or in flight.
    """

    start: Signal
    base: Signal
    count: Signal
    stop: Signal
    memory: Any
    o: Any
    exhausted: Signal
    idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "start": In(1), "base": In(memmap.ADDRESS_BITS), "count": In(REGISTER_BITS),
            "stop": In(1),
            "memory": Out(memory_read(arch)),
            "o": Out(stream.Signature(unsigned(INSTRUCTION_BITS))),
            "exhausted": Out(1), "idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        request, words = self.memory.request, self.memory.data
        k = self.arch.depth
        chunk_words = max(CHUNK * INSTRUCTION_BYTES // k, 1)

        unasked = Signal(REGISTER_BITS)    # instructions to request
        untaken = Signal(REGISTER_BITS)    # instructions to deliver
        address = Signal(memmap.ADDRESS_BITS, reset_less=True)
        pending = Signal(range(2 * chunk_words + 1))  # words requested and not received
        discard = Signal()
        m.d.comb += [
            self.exhausted.eq(untaken == 0),
            self.idle.eq(~(request.valid | self.o.valid | discard) & (pending == 0)),
        ]

        # Requests.
        part = Signal(range(CHUNK + 1))
        asked, received = Signal.like(pending), Signal()
        low, chunks = unasked[:exact_log2(CHUNK)], unasked[exact_log2(CHUNK):]
        # Known a cycle late, as requests are at least two apart.
        more, final = Signal(), Signal()
        m.d.sync += [more.eq((unasked != 0) & ~self.stop), final.eq(chunks == 0)]
        m.d.comb += [
            part.eq(Mux(final, low, CHUNK)),
            received.eq(words.valid & words.ready),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(more & ~request.valid & (pending <= chunk_words)):
            # Rounded up: a word may hold more than one instruction.
            m.d.comb += asked.eq((part * INSTRUCTION_BYTES + k - 1) >> exact_log2(k))
            m.d.sync += [
                request.valid.eq(1), request.p.address.eq(address), request.p.words.eq(asked),
                address.eq(address + CHUNK * INSTRUCTION_BYTES),
                chunks.eq(chunks - 1),
            ]
            with m.If(final):
                m.d.sync += unasked.eq(0)
        m.d.sync += pending.eq(pending + asked - received)

        take = Signal()
        m.d.comb += take.eq(self.o.valid & self.o.ready)
        m.d.sync += untaken.eq(untaken - take)
        self._deliver(m, words, received, discard, last=untaken == 1)

        with m.If(self.start):
            m.d.sync += [
                unasked.eq(self.count), untaken.eq(self.count), address.eq(self.base),
            ]
        with m.If(self.stop):
            m.d.sync += [unasked.eq(0), discard.eq(1), self.o.valid.eq(0)]
        with m.Elif(discard & (pending == 0)):
            m.d.sync += discard.eq(0)
        return m

    def _deliver(self, m: Module, words: Any, received: Signal, discard: Signal, last: Any) -> None:
        """Words of K bytes become instructions."""
        k, o = self.arch.depth, self.o
        word = Signal(INSTRUCTION_BITS, reset_less=True)
        m.d.comb += o.payload.eq(word)
        free = ~o.valid  # one may be taken every third cycle at most: no need to look ahead
        if k <= INSTRUCTION_BYTES:
            per = INSTRUCTION_BYTES // k
            place = Signal(range(per))
            m.d.comb += words.ready.eq(free | discard)
            with m.If(o.ready):
                m.d.sync += o.valid.eq(0)
            with m.If(received):
                m.d.sync += [
                    word.eq(Cat(word, words.payload)[8 * k:]),
                    o.valid.eq((place == per - 1) & ~discard),
                    place.eq(Mux(place == per - 1, 0, place + 1)),
                ]
            with m.If(discard | self.stop):
                m.d.sync += place.eq(0)
        else:
            per = k // INSTRUCTION_BYTES
            rest = Signal(8 * k - INSTRUCTION_BITS, reset_less=True)
            left = Signal(range(per))
            m.d.comb += words.ready.eq((free & (left == 0)) | discard)
            with m.If(o.ready):
                m.d.sync += o.valid.eq(0)
            with m.If(received):
                m.d.sync += [
                    Cat(word, rest).eq(words.payload),
                    o.valid.eq(~discard), left.eq(per - 1),
                ]
            with m.Elif(o.valid & o.ready & (left != 0) & ~last):
                m.d.sync += [
                    o.valid.eq(1), left.eq(left - 1), Cat(word, rest).eq(rest),
                ]
            with m.If(discard | self.stop | self.start):
                m.d.sync += left.eq(0)
