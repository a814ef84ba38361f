"""Decode instructions in order and hand each engine its part."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from vitrify.arch import memmap
from vitrify.arch.isa import FORMATS, Opcode, Region
from vitrify.rtl.bus.csr import REGISTER_BITS
from vitrify.rtl.interfaces import (
    COMMAND_DEPTH,
    EPILOGUE_COMMAND,
    FETCH_COMMAND,
    LOADER_COMMAND,
    MEMORY_REQUEST,
    MOVE_COMMAND,
    SEQ_BITS,
    instruction_layout,
    pipe,
)

from .instruction_fetch import INSTRUCTION_BITS
from .jobs import JOB
from .run_ahead import RunAhead

#: Engines that END waits for; set while they have nothing to do.
ENGINES = data.StructLayout(
    dict.fromkeys(("loader", "fetch", "epilogue", "loads", "stores"), unsigned(1))
)
#: Instructions finished: everything before this sequence number.
FINISHED = data.StructLayout({"matmuls": SEQ_BITS, "loads": SEQ_BITS, "stores": SEQ_BITS})
#: Index of the instruction that is at fault.
FAULT = data.StructLayout({"index": REGISTER_BITS})
#: END believes ENGINES after so many cycles: longer than any command or error is under way
#: between two units.
SETTLE_CYCLES = 16

_BASE_BITS = exact_log2(memmap.ALIGNMENT)
_COMMANDS = {"loader": LOADER_COMMAND, "fetch": FETCH_COMMAND, "epilogue": EPILOGUE_COMMAND}
_QUEUES = {**_COMMANDS, "weights": MEMORY_REQUEST, "loads": MOVE_COMMAND, "stores": MOVE_COMMAND}


class Dispatcher(wiring.Component):
    """Run jobs: one instruction in three cycles, as long as the engines' queues have room.

    A MATMUL enters the queues of loader, fetch and epilogue in the same cycle, and its weight
    stream, if it has one, that of the weight reader.  Base registers are cut down to multiples of
    ``ALIGNMENT``.  MATMUL, and LOAD with LOAD_INDEX, are numbered from 0 at reset, across jobs.

    Members
    -------
    job : In(stream.Signature(JOB))
    program_base : In(ADDRESS_BITS)
    program_count : In(32)
        Both are looked at when a job starts.
    start, stop : Out(1)
        For :class:`InstructionFetch`, which shares ``program_base`` and ``program_count``.
    instructions : In(stream.Signature(512))
    exhausted, fetch_idle : In(1)
    loader, fetch, epilogue : Out(stream of their commands)
    weights : Out(stream.Signature(MEMORY_REQUEST))
    loads, stores : Out(stream.Signature(MOVE_COMMAND))
    idle : In(ENGINES)
    finished : In(FINISHED)
    halt : In(1)
        Begin nothing new; a job does not end.
    running : Out(1)
        From taking a job to its end.
    issued : Out(1)
        Pulse for every instruction.
    done : Out(1)
        Pulse: the job is complete, its output in memory.
    error : Out(pipe(FAULT))
        Illegal opcode, or no END within ``program_count`` instructions; stuck until reset.
    """

    job: Any
    program_base: Signal
    program_count: Signal
    start: Signal
    stop: Signal
    instructions: Any
    exhausted: Signal
    fetch_idle: Signal
    loader: Any
    fetch: Any
    epilogue: Any
    weights: Any
    loads: Any
    stores: Any
    idle: Any
    finished: Any
    halt: Signal
    running: Signal
    issued: Signal
    done: Signal
    error: Any

    def __init__(self) -> None:
        super().__init__({
            "job": In(stream.Signature(JOB)),
            "program_base": In(memmap.ADDRESS_BITS), "program_count": In(REGISTER_BITS),
            "start": Out(1), "stop": Out(1),
            "instructions": In(stream.Signature(unsigned(INSTRUCTION_BITS))),
            "exhausted": In(1), "fetch_idle": In(1),
            **{name: Out(stream.Signature(layout)) for name, layout in _QUEUES.items()},
            "idle": In(ENGINES), "finished": In(FINISHED), "halt": In(1),
            "running": Out(1), "issued": Out(1), "done": Out(1), "error": Out(pipe(FAULT)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        queues = {name: self._queue(m, name, layout) for name, layout in _QUEUES.items()}
        word = Signal(INSTRUCTION_BITS, reset_less=True)
        view = {op: data.View(instruction_layout(op), word) for op in FORMATS}
        opcode = view[Opcode.END].opcode
        job = Signal(JOB, reset_less=True)
        index = Signal(REGISTER_BITS)
        address = Signal(memmap.ADDRESS_BITS, reset_less=True)
        matmuls, loads, stores = (Signal(SEQ_BITS, name=f"{n}_issued")
                                  for n in ("matmuls", "loads", "stores"))
        quiet, unrest = Signal(range(SETTLE_CYCLES)), Signal()

        self._payloads(m, queues, view, address, matmuls, loads)
        room, push = self._rules(m, queues, view, opcode, matmuls, loads, stores)

        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.job.valid & self.fetch_idle & ~self.halt):
                m.d.comb += [self.job.ready.eq(1), self.start.eq(1)]
                m.d.sync += [job.eq(self.job.p), index.eq(0)]
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += self.instructions.ready.eq(~self.halt)
                m.d.sync += word.eq(self.instructions.payload)
                with m.If(self.instructions.valid & ~self.halt):
                    m.next = "DECODE"
                with m.Elif(self.exhausted):
                    m.next = "ERROR"
            with m.State("DECODE"):
                m.d.sync += address.eq(_add(*self._operands(view, opcode, job)))
                m.next = "PUSH"
                with m.If(opcode == Opcode.END):
                    m.d.comb += self.stop.eq(1)
                    m.d.sync += quiet.eq(0)
                    m.next = "END"
                with m.Elif(~Cat(opcode == op for op in Opcode).any()):
                    m.next = "ERROR"
            with m.State("PUSH"), m.If(room & ~self.halt):
                m.d.comb += push.eq(1)
                m.d.sync += index.eq(index + 1)
                m.next = "TAKE"
            with m.State("END"):
                m.d.sync += quiet.eq(quiet + 1)
                with m.If(unrest):
                    m.d.sync += quiet.eq(0)
                with m.Elif(quiet == SETTLE_CYCLES - 1):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("ERROR"):
                m.d.comb += self.error.valid.eq(1)
        # Gathered from everywhere, hence a cycle late: quiet counts long enough.
        m.d.sync += unrest.eq(Cat(
            *(queue.r_rdy for queue in queues.values()),
            ~self.idle.as_value(), ~self.fetch_idle, self.halt,
        ).any())
        m.d.comb += [
            self.error.p.index.eq(index),
            self.running.eq(~fsm.ongoing("IDLE")),
            self.issued.eq(push | self.done),
        ]
        return m

    def _queue(self, m: Module, name: str, layout: data.Layout) -> SyncFIFOBuffered:
        fifo = SyncFIFOBuffered(width=layout.size, depth=COMMAND_DEPTH)
        m.submodules[name] = fifo
        connect(m, fifo.r_stream, flipped(getattr(self, name)))
        return fifo

    def _operands(self, view: dict[Opcode, Any], opcode: Value, job: Any) -> tuple[Value, Value]:
        """Base and offset of an instruction's DRAM address."""
        move, matmul = view[Opcode.LOAD], view[Opcode.MATMUL]
        base = Mux(move.region == Region.INPUT, job.input, job.output)
        program = (opcode == Opcode.MATMUL) | (move.region == Region.PROGRAM)
        return (
            Mux(program, self.program_base, base),
            Mux(opcode == Opcode.MATMUL, matmul.stream_offset, move.offset),
        )

    def _payloads(
        self, m: Module, queues: dict[str, Any], view: dict[Opcode, Any], address: Value,
        matmuls: Value, loads: Value,
    ) -> None:
        """What enters each queue; a function of the instruction word and its address alone."""
        matmul, move, lists = view[Opcode.MATMUL], view[Opcode.LOAD], view[Opcode.LOAD_INDEX]
        own = {"seq": matmuls, "load_seq": loads}
        for name, layout in _COMMANDS.items():
            command = Signal(layout, name=f"{name}_command")
            for field in layout.members:
                m.d.comb += command[field].eq(own[field] if field in own else matmul[field])
            m.d.comb += queues[name].w_data.eq(command)

        request = Signal(MEMORY_REQUEST)
        m.d.comb += [
            request.address.eq(address), request.words.eq(matmul.stream_words),
            queues["weights"].w_data.eq(request),
        ]

        command = Signal(MOVE_COMMAND)
        distance = Signal(len(move.wait_distance))
        m.d.comb += [
            command.opcode.eq(move.opcode), command.address.eq(address),
            command.addr.eq(move.addr), command.words.eq(move.words), command.wide.eq(move.wide),
            command.stride.eq(move.stride), command.rows.eq(move.rows),
            distance.eq(move.wait_distance),
        ]
        with m.If(move.opcode == Opcode.LOAD_INDEX):
            m.d.comb += [
                command.addr.eq(lists.base), command.words.eq(lists.count),
                command.rows.eq(1), command.wide.eq(0),
                distance.eq(lists.wait_distance),
            ]
        m.d.comb += [
            command.wait.eq(distance != 0), command.wait_seq.eq(matmuls - distance),
            queues["loads"].w_data.eq(command), queues["stores"].w_data.eq(command),
        ]

    def _rules(
        self, m: Module, queues: dict[str, Any], view: dict[Opcode, Any], opcode: Value,
        matmuls: Signal, loads: Signal, stores: Signal,
    ) -> tuple[Signal, Signal]:
        """Which queues an instruction needs.  Returns "there is room" and the push strobe.

        Both sides of ``push`` are registered: the word stands still from DECODE on, and room that
        was seen stays until the dispatcher itself fills it.
        """
        room, push = Signal(), Signal()
        passing: dict[str, RunAhead] = {}
        for name, issued in (("loads", loads), ("stores", stores), ("matmuls", matmuls)):
            m.submodules[f"run_ahead_of_{name}"] = limit = RunAhead()
            m.d.comb += [limit.issued.eq(issued), limit.done.eq(self.finished[name])]
            passing[name] = limit

        matmul, load, store, weights = (
            Signal(name=f"is_{name}") for name in ("matmul", "load", "store", "weights")
        )
        m.d.sync += [
            matmul.eq(opcode == Opcode.MATMUL),
            load.eq((opcode == Opcode.LOAD) | (opcode == Opcode.LOAD_INDEX)),
            store.eq(opcode == Opcode.STORE),
            weights.eq((opcode == Opcode.MATMUL) & (view[Opcode.MATMUL].stream_words != 0)),
        ]
        with m.Switch(opcode):
            with m.Case(Opcode.MATMUL):
                # Room for weights is asked for even if there are none: they seldom lack it.
                needed = [queues[name].w_rdy for name in (*_COMMANDS, "weights")]
                needed += [passing["loads"].ready, passing["stores"].ready]
                m.d.sync += room.eq(Cat(needed).all())
            with m.Case(Opcode.STORE):
                m.d.sync += room.eq(queues["stores"].w_rdy)
            with m.Default():
                m.d.sync += room.eq(queues["loads"].w_rdy & passing["matmuls"].ready)
        m.d.comb += [
            *(queues[name].w_en.eq(push & matmul) for name in _COMMANDS),
            queues["weights"].w_en.eq(push & weights),
            queues["loads"].w_en.eq(push & load), queues["stores"].w_en.eq(push & store),
            passing["loads"].advance.eq(push & matmul),
            passing["stores"].advance.eq(push & matmul),
            passing["matmuls"].advance.eq(push & load),
        ]
        m.d.sync += [
            matmuls.eq(matmuls + (push & matmul)), loads.eq(loads + (push & load)),
            stores.eq(stores + (push & store)),
        ]
        return room, push


def _add(base: Value, offset: Value) -> Value:
    """Sum of an aligned base and an offset."""
    return Cat(offset[:_BASE_BITS], base[_BASE_BITS:] + offset[_BASE_BITS:])
