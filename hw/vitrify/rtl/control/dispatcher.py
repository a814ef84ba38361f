"""Decode instructions in order and hand each engine its part."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import COMMAND_DEPTH, Opcode
from vitrify.arch.limits import opcodes
from vitrify.rtl.bus.csr import REGISTER_BITS
from vitrify.rtl.interfaces import (
    EXPERT_BITS,
    QUEUE,
    SEQ_BITS,
    instruction_layout,
    pipe,
)

from .checksum import Checksum
from .decode import COMMANDS, QUEUE_LATENCY, Decode, payloads
from .instruction_fetch import INSTRUCTION_BITS
from .jobs import JOB
from .legal import Legal
from .run_ahead import RunAhead

#: Engines that END waits for; set while they have nothing to do.
ENGINES = data.StructLayout(
    dict.fromkeys(("loader", "fetch", "epilogue", "loads", "stores"), unsigned(1))
)
#: Instructions finished: everything before this sequence number.
FINISHED = data.StructLayout(dict.fromkeys(("matmuls", "loads", "stores", "routes"), SEQ_BITS))
#: Index of the instruction that is at fault.
FAULT = data.StructLayout({"index": REGISTER_BITS})
#: END believes ENGINES after so many cycles: longer than any command or error is under way
#: between two units.
SETTLE_CYCLES = 16


class Dispatcher(wiring.Component):
    """Run jobs: one instruction in five cycles, as long as the engines' queues have room.

    (A task's stride, or a look at an expert's queue, costs some cycles more.)

    A MATMUL enters the queues of loader, fetch and epilogue in the same cycle, and its weight
    stream, if it has one, that of the weight reader.  MATMUL, and LOAD with LOAD_INDEX, are
    numbered from 0 at reset, across jobs.

    One ROUTE is under way at a time.  A MATMUL with ``expert_rows`` waits for it, so that its rows
    are known; without any it gets no number, its weights are not asked for, and the distances of
    later instructions are translated (:class:`~vitrify.rtl.control.distances.Distances`).

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    job : In(stream.Signature(JOB))
    present : Out(JOB)
        The job that runs.
    start, stop : Out(1)
        For :class:`InstructionFetch`, which has program and count from ``present``.
    instructions : In(stream.Signature(512))
    exhausted, fetch_idle : In(1)
    loader, fetch, epilogue : Out(stream of their commands)
    weights : Out(stream.Signature(MEMORY_REQUEST))
    loads, stores : Out(stream.Signature(MOVE_COMMAND))
    routes : Out(stream.Signature(ROUTE_COMMAND))
    expert, queue : Out(EXPERT_BITS), In(QUEUE)
        Of :class:`~vitrify.rtl.units.router.Router`; these three if the core has experts.
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
        Illegal opcode or field, wrong checksum, or no END within ``count`` instructions; stuck
        until reset.  Its index counts the job's instructions that were handed out so far.
    """

    job: Any
    present: Any
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
    routes: Any
    expert: Signal
    queue: Any
    idle: Any
    finished: Any
    halt: Signal
    running: Signal
    issued: Signal
    done: Signal
    error: Any

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        self._queues = {n: q for n, q in payloads(arch).items() if n != "routes" or arch.experts}
        routing = {"expert": Out(EXPERT_BITS), "queue": In(QUEUE)} if arch.experts else {}
        super().__init__({
            "job": In(stream.Signature(JOB)),
            "present": Out(JOB),
            "start": Out(1), "stop": Out(1),
            "instructions": In(stream.Signature(unsigned(INSTRUCTION_BITS))),
            "exhausted": In(1), "fetch_idle": In(1),
            **{name: Out(stream.Signature(layout)) for name, layout in self._queues.items()},
            **routing,
            "idle": In(ENGINES), "finished": In(FINISHED), "halt": In(1),
            "running": Out(1), "issued": Out(1), "done": Out(1), "error": Out(pipe(FAULT)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        queues = {name: self._queue(m, name, layout) for name, layout in self._queues.items()}
        m.submodules.decode = self._decode = decode = Decode(self.arch)
        m.submodules.checksum = checksum = Checksum()
        m.submodules.legal = legal = Legal(self.arch)
        damaged = Signal()  # known from the cycle after DECODE on
        word = Signal(INSTRUCTION_BITS, reset_less=True)
        matmul = data.View(instruction_layout(Opcode.MATMUL), word)
        opcode = matmul.opcode
        job = Signal(JOB, reset_less=True)
        index = Signal(REGISTER_BITS)
        quiet, unrest = Signal(range(SETTLE_CYCLES)), Signal()
        fetch_idle = Signal()  # stays so until it is started from here
        m.d.sync += fetch_idle.eq(self.fetch_idle)
        m.d.comb += [
            checksum.word.eq(self.instructions.payload),
            decode.word.eq(word), legal.word.eq(word),
            decode.job.eq(job), self.present.eq(job),
            *(queue.w_data.eq(getattr(decode, name)) for name, queue in queues.items()),
        ]
        if self.arch.patterns:
            m.d.comb += legal.pattern.eq(decode.pattern)
        push, skip = Signal(), Signal()
        room = self._rules(m, queues, matmul, push, skip)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += job.eq(self.job.p)
                with m.If(self.job.valid & fetch_idle & ~self.halt):
                    m.d.comb += self.job.ready.eq(1)
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [self.start.eq(1), decode.forget.eq(1)]
                m.d.sync += index.eq(0)
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += self.instructions.ready.eq(~self.halt)
                m.d.sync += word.eq(self.instructions.payload)
                with m.If(self.instructions.valid & ~self.halt):
                    m.next = "DECODE"
                with m.Elif(self.exhausted):
                    m.next = "ERROR"
            with m.State("DECODE"):
                m.d.comb += decode.load.eq(1)
                m.d.sync += damaged.eq(checksum.wrong)
                m.next = "PUSH"
                with m.If(opcode == Opcode.END):
                    m.d.comb += self.stop.eq(1)
                    m.d.sync += quiet.eq(0)
                    m.next = "END"
                with m.Elif(~Cat(opcode == op for op in opcodes(self.arch)).any()):
                    m.next = "ERROR"
                if self.arch.experts:
                    with m.If((opcode == Opcode.MATMUL) & matmul.expert_rows):
                        m.next = "EXPERT"
            if self.arch.experts:
                self._look_up(m, matmul, index, skip, damaged | legal.illegal)
            with m.State("PUSH"):
                # In its first cycle decode is busy, and what is illegal is not yet known.
                with m.If(damaged | (legal.illegal & ~decode.busy)):
                    m.next = "ERROR"
                with m.Elif(room & ~self.halt & ~decode.busy):
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                # A state of its own: the strobes reach queues that lie far apart.
                m.d.comb += push.eq(1)
                m.d.sync += index.eq(index + 1)
                m.next = "TAKE"
            with m.State("END"):
                m.d.sync += quiet.eq(quiet + 1)
                with m.If(damaged):
                    m.next = "ERROR"
                with m.Elif(unrest):
                    m.d.sync += quiet.eq(0)
                with m.Elif(quiet == SETTLE_CYCLES - 1):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("ERROR"):
                m.d.comb += self.error.valid.eq(1)
        # Gathered from everywhere, hence a cycle late: quiet counts long enough.
        m.d.sync += unrest.eq(Cat(
            *(queue.r_rdy for queue in queues.values()),
            ~self.idle.as_value(), ~self.fetch_idle, ~self._routed, self.halt,
        ).any())
        m.d.comb += [
            self.error.p.index.eq(index),
            self.running.eq(~fsm.ongoing("IDLE")),
            self.issued.eq(push | skip | self.done),
        ]
        return m

    def _look_up(
        self, m: Module, matmul: Any, index: Signal, skip: Signal, wrong: Value
    ) -> None:
        """Wait for the ROUTE under way, then for the queue's rows; push or skip."""
        # One cycle more for the router's own register.
        settled = Signal(range(QUEUE_LATENCY + 2))
        m.d.comb += [self.expert.eq(matmul.expert), self._decode.queue.eq(self.queue)]
        m.d.sync += settled.eq(0)
        with m.State("EXPERT"), m.If(self._routed):
            m.d.sync += settled.eq(settled + 1)
            with m.If((settled == QUEUE_LATENCY + 1) & ~self.halt):
                m.next = "PUSH"
                with m.If(self._decode.empty & ~wrong):
                    m.d.comb += skip.eq(1)
                    m.d.sync += index.eq(index + 1)
                    m.next = "TAKE"

    def _queue(self, m: Module, name: str, layout: data.Layout) -> SyncFIFOBuffered:
        fifo = SyncFIFOBuffered(width=layout.size, depth=COMMAND_DEPTH)
        m.submodules[name] = fifo
        connect(m, fifo.r_stream, flipped(getattr(self, name)))
        return fifo

    def _rules(
        self, m: Module, queues: dict[str, Any], word: Any, push: Signal, skip: Signal
    ) -> Signal:
        """Which queues an instruction needs, and all numbers; returns "there is room".

        Both sides of ``push`` are registered: the word stands still from DECODE on, and room that
        was seen stays until the dispatcher itself fills it.
        """
        room = Signal()
        opcode, decode, numbers = word.opcode, self._decode, self._decode.numbers
        issued = {
            name: Signal(SEQ_BITS, name=f"{name}_issued")
            for name in ("matmuls", "loads", "stores", "routes")
        }
        skipped = Signal(SEQ_BITS)
        passing: dict[str, RunAhead] = {}
        for name in ("loads", "stores", "matmuls"):
            m.submodules[f"run_ahead_of_{name}"] = limit = RunAhead()
            m.d.comb += [limit.issued.eq(issued[name]), limit.done.eq(self.finished[name])]
            passing[name] = limit
        self._routed = Signal()
        m.d.comb += self._routed.eq(self.finished.routes == issued["routes"])

        kinds = {
            "matmuls": opcode == Opcode.MATMUL,
            "loads": (opcode == Opcode.LOAD) | (opcode == Opcode.LOAD_INDEX),
            "stores": opcode == Opcode.STORE,
            "routes": opcode == Opcode.ROUTE,
            "patterns": opcode == Opcode.PATTERN,
        }
        pushes: dict[str, Value] = {}
        for name, kind in kinds.items():
            one = Signal(name=f"is_{name}")
            m.d.sync += one.eq(kind)
            pushes[name] = push & one
            if name in issued:
                m.d.sync += issued[name].eq(issued[name] + pushes[name])
        weights = Signal(name="is_weights")
        m.d.sync += weights.eq(kinds["matmuls"] & (word.stream_words != 0))
        with m.Switch(opcode):
            with m.Case(Opcode.MATMUL):
                # Room for weights is asked for even if there are none: they seldom lack it.
                needed = [queues[name].w_rdy for name in (*COMMANDS, "weights")]
                needed += [passing["loads"].ready, passing["stores"].ready]
                m.d.sync += room.eq(Cat(needed).all())
            with m.Case(Opcode.STORE):
                m.d.sync += room.eq(queues["stores"].w_rdy)
            with m.Case(Opcode.ROUTE):
                m.d.sync += room.eq(self._routed)
            with m.Case(Opcode.PATTERN):
                m.d.sync += room.eq(1)
            with m.Default():
                m.d.sync += room.eq(queues["loads"].w_rdy & passing["matmuls"].ready)
        m.d.comb += [
            *(queues[name].w_en.eq(pushes["matmuls"]) for name in COMMANDS),
            queues["weights"].w_en.eq(push & weights),
            *(queues[name].w_en.eq(pushes[name]) for name in ("loads", "stores", "routes")
              if name in queues),
            passing["loads"].advance.eq(pushes["matmuls"]),
            passing["stores"].advance.eq(pushes["matmuls"]),
            passing["matmuls"].advance.eq(pushes["loads"]),
            decode.advance.eq(pushes["matmuls"]), decode.skip.eq(skip),
            decode.prefix.eq(pushes["patterns"]),
            numbers.matmuls.eq(issued["matmuls"]), numbers.loads.eq(issued["loads"]),
            numbers.skipped.eq(skipped),
        ]
        with m.If(skip):
            m.d.sync += skipped.eq(skipped + 1)
        with m.If(pushes["matmuls"]):
            m.d.sync += skipped.eq(0)
        return room
