"""LOAD, LOAD_INDEX and STORE: between DRAM and the core's memories."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import Opcode
from vitrify.rtl.interfaces import (
    ADDR_BITS,
    EPILOGUE_PROGRESS,
    MOVE_COMMAND,
    MOVER_PROGRESS,
    READ_LATENCY,
    SEQ_BITS,
    bank_choice,
    bank_pair,
    memory_read,
    memory_write,
    pair_bits,
    pipe,
    read_client,
    write_client,
)
from vitrify.rtl.lib.skid import Skid
from vitrify.rtl.memory.index_memory import ENTRY_BITS, index_write

from .move_walk import ElementWalk, MoveRequest, finished

#: Words between the token memory and the write master: those that can be in flight while the
#: first of them waits, so that a word comes every cycle.
_STORE_FIFO = 8


class LoadEngine(wiring.Component):
    """DRAM to token memory and row-index memory, one word of K bytes (one index) a cycle.

    Members
    -------
    i : In(stream.Signature(MOVE_COMMAND))
    finished_matmuls : In(SEQ_BITS)
    memory : Out(memory_read(arch))
    write : Out(write_client(arch))
    index : Out(pipe(index_write(arch)))
    progress : Out(MOVER_PROGRESS)
    idle : Out(1)
    """

    i: Any
    finished_matmuls: Signal
    memory: Any
    write: Any
    index: Any
    progress: Any
    idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "i": In(stream.Signature(MOVE_COMMAND)), "finished_matmuls": In(SEQ_BITS),
            "memory": Out(memory_read(arch)), "write": Out(write_client(arch)),
            "index": Out(pipe(index_write(arch))),
            "progress": Out(MOVER_PROGRESS), "idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.request = request = MoveRequest(self.arch)
        m.submodules.walk = walk = ElementWalk()
        connect(m, flipped(self.i), request.i)
        connect(m, request.request, flipped(self.memory.request))
        write, words, command = self.write, self.memory.data, request.o
        m.d.comb += [walk.command.eq(command.p), write.mask.eq(~0)]

        m.submodules.skid = skid = Skid(data.StructLayout({
            "wide": 1, "addr": ADDR_BITS, "pair": pair_bits(self.arch), "banks": self.arch.banks,
            "last": 1, "lo": 8 * self.arch.depth, "hi": 8 * self.arch.depth,
        }))
        wide, high = Signal(), Signal()
        low = Signal(8 * self.arch.depth, reset_less=True)
        element, written = skid.i.payload, skid.o.payload
        m.d.comb += [
            element.wide.eq(wide), element.addr.eq(walk.addr), element.last.eq(walk.last),
            element.pair.eq(bank_pair(self.arch, walk.addr, wide)),
            element.banks.eq(bank_choice(self.arch, walk.addr, wide)),
            element.lo.eq(Mux(wide, low, words.payload)), element.hi.eq(words.payload),
            write.valid.eq(skid.o.valid), skid.o.ready.eq(write.ready),
            *(getattr(write, name).eq(written[name])
              for name in ("wide", "addr", "pair", "banks", "lo", "hi")),
        ]
        indexed = Signal()  # LOAD_INDEX finished
        m.d.sync += self.index.valid.eq(0)
        with m.FSM() as fsm:
            with m.State("WAIT"):
                # Entries need no grant: they must not count before words that wait for one.
                indexes = command.p.opcode == Opcode.LOAD_INDEX
                m.d.comb += [
                    command.ready.eq(
                        finished(self.finished_matmuls, command.p) & (skid.empty | ~indexes)
                    ),
                    walk.start.eq(1),
                ]
                m.d.sync += [wide.eq(command.p.wide), high.eq(0)]
                with m.If(command.valid & command.ready):
                    m.next = "MOVE"
                    with m.If(indexes):
                        m.next = "INDEX"
            with m.State("MOVE"):
                m.d.comb += words.ready.eq(skid.i.ready)
                with m.If(words.valid & skid.i.ready):
                    complete = high | ~wide
                    m.d.comb += [walk.step.eq(complete), skid.i.valid.eq(complete)]
                    m.d.sync += [high.eq(wide & ~high), low.eq(words.payload)]
                    with m.If(complete & walk.last):
                        m.next = "WAIT"
            with m.State("INDEX"):
                m.d.comb += indexed.eq(self._index(m, walk))
                with m.If(indexed):
                    m.next = "WAIT"

        self._progress(m, skid.o.valid & skid.o.ready, written.last, indexed)
        m.d.comb += self.idle.eq(request.idle & fsm.ongoing("WAIT") & skid.empty)
        return m

    def _index(self, m: Module, walk: ElementWalk) -> Signal:
        """One entry a cycle; LOAD_INDEX comes as one row of ``count`` words at its base."""
        words = self.memory.data
        entries = self.arch.depth // formats.INDEX_BYTES
        rest = Signal(8 * self.arch.depth - ENTRY_BITS, reset_less=True)
        left = Signal(range(entries), name="entries_left")
        done = Signal(name="index_done")
        entry = Signal(ENTRY_BITS)
        more = Signal()  # left != 0
        m.d.comb += [words.ready.eq(~more), entry.eq(words.payload)]
        m.d.sync += [self.index.p.addr.eq(walk.addr), self.index.p.data.eq(entry)]
        with m.If(more):
            m.d.comb += entry.eq(rest)
        with m.If(more | words.valid):
            m.d.comb += [walk.step.eq(1), done.eq(walk.last)]
            m.d.sync += [
                self.index.valid.eq(1), left.eq(left - 1), more.eq(left != 1),
                rest.eq(rest >> ENTRY_BITS),
            ]
            with m.If(~more):
                m.d.sync += [
                    left.eq(entries - 1), more.eq(1),
                    rest.eq(words.payload >> ENTRY_BITS),
                ]
            with m.If(walk.last):
                m.d.sync += [left.eq(0), more.eq(0)]
        return done

    def _progress(self, m: Module, written: Any, last: Any, indexed: Any) -> None:
        """Count what is visible, two cycles after the grant of its write."""
        progress = self.progress
        visible = Signal()  # one cycle later: the last entry is then in the index memory
        wrote, ends = Signal(), Signal()  # a grant comes late in its cycle
        m.d.sync += [visible.eq(indexed), wrote.eq(written), ends.eq(written & last)]
        with m.If(wrote):
            m.d.sync += progress.words.eq(progress.words + 1)
        with m.If(ends | visible):
            m.d.sync += [progress.seq.eq(progress.seq + 1), progress.words.eq(0)]


class StoreEngine(wiring.Component):
    """Token memory to DRAM, one word of K bytes a cycle; wide elements are two narrow reads.

    Members
    -------
    i : In(stream.Signature(MOVE_COMMAND))
    finished_matmuls : In(SEQ_BITS)
    memory : Out(memory_write(arch))
    read : Out(read_client(arch))
    done : Out(SEQ_BITS)
        STOREs whose data are in DRAM.
    idle : Out(1)
        No STORE is under way, all write responses are in.
    """

    i: Any
    finished_matmuls: Signal
    memory: Any
    read: Any
    done: Signal
    idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "i": In(stream.Signature(MOVE_COMMAND)), "finished_matmuls": In(SEQ_BITS),
            "memory": Out(memory_write(arch)), "read": Out(read_client(arch)),
            "done": Out(SEQ_BITS), "idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.request = request = MoveRequest(self.arch)
        m.submodules.walk = walk = ElementWalk()
        m.submodules.fifo = fifo = SyncFIFO(width=8 * self.arch.depth, depth=_STORE_FIFO)
        connect(m, flipped(self.i), request.i)
        connect(m, request.request, flipped(self.memory.request))
        connect(m, fifo.r_stream, flipped(self.memory.data))
        read, command = self.read, request.o
        m.d.comb += walk.command.eq(command.p)

        # Reads are issued only for words that the FIFO will have room for.
        room = Signal(range(_STORE_FIFO + 1), init=_STORE_FIFO)
        issue = Signal()
        m.d.sync += room.eq(room - issue + (fifo.r_rdy & fifo.r_en))

        wide, high = Signal(), Signal()
        offset_bits = exact_log2(self.arch.bank_words)
        pair, offset = walk.addr[offset_bits:], walk.addr[:offset_bits]
        m.submodules.requests = requests = Skid(unsigned(ADDR_BITS))
        m.d.comb += [
            requests.i.valid.eq(issue),
            # as memmap.pair_banks
            requests.i.payload.eq(Mux(wide, Cat(offset, high, pair), walk.addr)),
            read.valid.eq(requests.o.valid), read.addr.eq(requests.o.payload),
            requests.o.ready.eq(read.ready),
        ]
        with m.FSM() as fsm:
            with m.State("WAIT"):
                m.d.comb += [
                    command.ready.eq(finished(self.finished_matmuls, command.p)),
                    walk.start.eq(1),
                ]
                m.d.sync += [wide.eq(command.p.wide), high.eq(0)]
                with m.If(command.valid & command.ready):
                    m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += issue.eq(requests.i.ready & (room != 0))
                with m.If(issue):
                    complete = high | ~wide
                    m.d.comb += walk.step.eq(complete)
                    m.d.sync += high.eq(wide & ~high)
                    with m.If(complete & walk.last):
                        m.next = "WAIT"

        arriving = Signal(READ_LATENCY)
        m.d.sync += arriving.eq(Cat(read.valid & read.ready, arriving))
        m.d.comb += [fifo.w_en.eq(arriving[-1]), fifo.w_data.eq(read.lo)]

        asked = Signal(SEQ_BITS)
        m.d.sync += [
            asked.eq(asked + (self.memory.request.valid & self.memory.request.ready)),
            self.done.eq(self.done + self.memory.done),
        ]
        m.d.comb += self.idle.eq(request.idle & fsm.ongoing("WAIT") & (asked == self.done))
        return m


class Mover(wiring.Component):
    """Loads and stores, each in the order of their commands, independent of each other.

    A granted token-memory write is visible in the next cycle
    (:class:`vitrify.rtl.memory.token_memory.TokenMemory`) and counts in the one after it.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    loads, stores : In(stream.Signature(MOVE_COMMAND))
    epilogue : In(EPILOGUE_PROGRESS)
    read_memory : Out(memory_read(arch))
    write_memory : Out(memory_write(arch))
    read : Out(read_client(arch))
        Narrow reads of STORE.
    write : Out(write_client(arch))
        Writes of LOAD.
    index : Out(pipe(index_write(arch)))
    progress : Out(MOVER_PROGRESS)
        ``seq``: LOAD and LOAD_INDEX finished; ``words``: elements (a wide one counts once) of
        the current LOAD in the token memory.
    stores_done : Out(SEQ_BITS)
        STOREs that are in DRAM.
    loads_idle, stores_idle : Out(1)
    """

    loads: Any
    stores: Any
    epilogue: Any
    read_memory: Any
    write_memory: Any
    read: Any
    write: Any
    index: Any
    progress: Any
    stores_done: Signal
    loads_idle: Signal
    stores_idle: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "loads": In(stream.Signature(MOVE_COMMAND)),
            "stores": In(stream.Signature(MOVE_COMMAND)),
            "epilogue": In(EPILOGUE_PROGRESS),
            "read_memory": Out(memory_read(arch)), "write_memory": Out(memory_write(arch)),
            "read": Out(read_client(arch)), "write": Out(write_client(arch)),
            "index": Out(pipe(index_write(arch))),
            "progress": Out(MOVER_PROGRESS), "stores_done": Out(SEQ_BITS),
            "loads_idle": Out(1), "stores_idle": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.load = load = LoadEngine(self.arch)
        m.submodules.store = store = StoreEngine(self.arch)
        connect(m, flipped(self.loads), load.i)
        connect(m, load.memory, flipped(self.read_memory))
        connect(m, load.write, flipped(self.write))
        connect(m, load.index, flipped(self.index))
        connect(m, flipped(self.stores), store.i)
        connect(m, store.memory, flipped(self.write_memory))
        connect(m, store.read, flipped(self.read))
        m.d.comb += [
            load.finished_matmuls.eq(self.epilogue.seq),
            store.finished_matmuls.eq(self.epilogue.seq),
            self.progress.eq(load.progress), self.stores_done.eq(store.done),
            self.loads_idle.eq(load.idle), self.stores_idle.eq(store.idle),
        ]
        return m
