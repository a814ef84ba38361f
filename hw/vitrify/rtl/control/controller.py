"""Everything between the register bus and the engines' command queues."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from vitrify.arch import csr, memmap
from vitrify.arch.config import ArchConfig
from vitrify.rtl.bus.axi import axi4_lite
from vitrify.rtl.bus.csr import ControlRegisters
from vitrify.rtl.bus.read_master import BUS_ERROR
from vitrify.rtl.bus.window import WINDOW
from vitrify.rtl.interfaces import EXPERT_BITS, QUEUE, memory_read, pipe
from vitrify.rtl.lib.reset import ResetChain

from .counters import EVENTS, Counters
from .decode import payloads
from .dispatcher import ENGINES, FINISHED, Dispatcher
from .instruction_fetch import InstructionFetch
from .jobs import JobQueue, page_address
from .supervisor import Supervisor
from .watchdog import Watchdog

_ALIGNED = exact_log2(memmap.ALIGNMENT)
#: What the AXI master reports, SLVERR or DECERR, and bursts outside the windows.
BUS_ERRORS = ("read_error", "write_error", "read_refused", "write_refused")
#: Events that the controller knows itself.
_OWN_EVENTS = ("cycles", "instructions")
#: Events of the engines and of the bus.
ENGINE_EVENTS = data.StructLayout(
    {name: 1 for name in EVENTS.members if name not in _OWN_EVENTS}
)


class Controller(wiring.Component):
    """Registers, job queue, instruction fetch, dispatcher, supervisor and counters.

    Parameters
    ----------
    arch : ArchConfig
    units : int
        Units outside that get ``core_reset`` one after the other.
    limit_cycles, drain_cycles : int
        Cycles of a unit of CYCLE_LIMIT, and for which a reset waits for the bus.

    Members
    -------
    s_axi : In(axi4_lite())
    irq : Out(1)
    instructions : Out(memory_read(arch))
    loader, fetch, epilogue : Out(stream of their commands)
    weights : Out(stream.Signature(MEMORY_REQUEST))
        Requests of the weight stream; their words go to the loader.
    loads, stores : Out(stream.Signature(MOVE_COMMAND))
    routes, expert, queue : Out(stream.Signature(ROUTE_COMMAND)), Out(EXPERT_BITS), In(QUEUE)
        Of the router, if the core has experts.
    idle : In(ENGINES)
        Set while an engine has nothing to do; falls at most ``SETTLE_CYCLES - 1`` cycles after
        the engine took a command.
    finished : In(FINISHED)
        ``matmuls``: ``epilogue.progress.seq``; ``loads``: ``mover.progress.seq``; ``stores``:
        ``mover.stores_done``; ``routes``: ``router.done``.
    events : In(ENGINE_EVENTS)
    counted : Out(EVENTS)
        Those of a running job, and the controller's own.
    bus_idle : In(1)
    bus_stop : Out(1)
    read_window, write_window : Out(WINDOW)
    read_error, write_error, read_refused, write_refused : In(pipe(BUS_ERROR))
        All of the AXI master.
    core_reset : Out(1)
        Synchronous reset of everything outside the controller, :attr:`RESET_DELAY` cycles after
        the supervisor gives it.
    """

    RESET_DELAY = 2

    s_axi: Any
    irq: Signal
    instructions: Any
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
    events: Any
    counted: Any
    bus_idle: Signal
    bus_stop: Signal
    read_window: Any
    write_window: Any
    read_error: Any
    write_error: Any
    read_refused: Any
    write_refused: Any
    core_reset: Signal

    def __init__(
        self, arch: ArchConfig, *, units: int, limit_cycles: int = csr.LIMIT_CYCLES,
        drain_cycles: int = csr.DRAIN_CYCLES,
    ) -> None:
        self.arch = arch
        self._reset_cycles = self.RESET_DELAY + units + 1
        self._limit_cycles = limit_cycles
        self._drain_cycles = drain_cycles
        self._queues = {n: q for n, q in payloads(arch).items() if n != "routes" or arch.experts}
        routing = {"expert": Out(EXPERT_BITS), "queue": In(QUEUE)} if arch.experts else {}
        super().__init__({
            "s_axi": In(axi4_lite()), "irq": Out(1),
            "instructions": Out(memory_read(arch)),
            **{name: Out(stream.Signature(layout)) for name, layout in self._queues.items()},
            **routing,
            "idle": In(ENGINES), "finished": In(FINISHED), "events": In(ENGINE_EVENTS),
            "counted": Out(EVENTS), "bus_idle": In(1), "bus_stop": Out(1),
            "read_window": Out(WINDOW), "write_window": Out(WINDOW),
            **{name: In(pipe(BUS_ERROR)) for name in BUS_ERRORS},
            "core_reset": Out(1),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.registers = registers = ControlRegisters(self.arch)
        m.submodules.jobs = jobs = JobQueue()
        m.submodules.supervisor = supervisor = Supervisor(
            reset_cycles=self._reset_cycles, drain_cycles=self._drain_cycles
        )
        m.submodules.counters = counters = Counters()
        fetch, dispatcher = InstructionFetch(self.arch), Dispatcher(self.arch)
        chain = ResetChain(m, supervisor.core_reset)
        chain.add("instruction_fetch", fetch)
        chain.add("dispatcher", dispatcher)
        assert chain.length == self.RESET_DELAY

        connect(m, flipped(self.s_axi), registers.s_axi)
        connect(m, fetch.memory, flipped(self.instructions))
        connect(m, fetch.o, dispatcher.instructions)
        connect(m, jobs.o, dispatcher.job)
        if self.arch.experts:
            m.d.comb += [self.expert.eq(dispatcher.expert), dispatcher.queue.eq(self.queue)]
        for name in self._queues:
            connect(m, getattr(dispatcher, name), flipped(getattr(self, name)))
        for name in BUS_ERRORS:
            connect(m, flipped(getattr(self, name)), getattr(supervisor, name))
        connect(m, dispatcher.error, supervisor.fault)

        stopped = Signal()
        m.d.sync += stopped.eq(supervisor.failed | supervisor.resetting)
        self._jobs(m, registers, supervisor, jobs)
        self._watch(m, registers, supervisor, dispatcher, stopped)
        m.d.comb += [
            fetch.start.eq(dispatcher.start), fetch.stop.eq(dispatcher.stop),
            fetch.base.eq(page_address(dispatcher.present.program)),
            fetch.count.eq(dispatcher.present.count),
            dispatcher.exhausted.eq(fetch.exhausted), dispatcher.fetch_idle.eq(fetch.idle),
            dispatcher.idle.eq(self.idle), dispatcher.finished.eq(self.finished),
            dispatcher.halt.eq(stopped),
            supervisor.reset.eq(registers.control.reset),
            supervisor.overflow.eq(jobs.overflow), supervisor.done.eq(dispatcher.done),
            supervisor.bus_idle.eq(self.bus_idle), self.bus_stop.eq(supervisor.bus_stop),
            self.core_reset.eq(chain.end), self.irq.eq(registers.irq),
        ]
        self._status(m, registers, supervisor, jobs, dispatcher)
        for window, name in ((self.read_window, "read"), (self.write_window, "write")):
            m.d.comb += [
                window[end].eq(self._page(registers, name, end))
                for end in ("base", "limit")
            ]

        for name in ENGINE_EVENTS.members:
            m.d.comb += counters.events[name].eq(self.events[name])
        m.d.comb += [
            counters.events.cycles.eq(1), counters.events.instructions.eq(dispatcher.issued),
            counters.running.eq(dispatcher.running & ~stopped),
            counters.clear.eq(registers.control.clear_counters),
            registers.counters.eq(counters.values), self.counted.eq(counters.counted),
        ]
        return m

    @staticmethod
    def _page(registers: Any, name: str, end: str = "base") -> Value:
        """An address without the bits below its alignment (a limit has one bit more)."""
        low, high = (getattr(registers, f"{name}_{end}_{half}").value for half in ("lo", "hi"))
        return Cat(low[_ALIGNED:], high)

    def _jobs(self, m: Module, registers: Any, supervisor: Supervisor, jobs: JobQueue) -> None:
        """A job is queued with everything that belongs to it, if all addresses are aligned."""
        names = ("program_base", "input_base", "output_base",
                 *(f"{window}_{end}" for window in ("read", "write") for end in ("base", "limit")))
        # Written some cycles before the push.
        wrong = Signal(len(names))
        for i, name in enumerate(names):
            low = getattr(registers, f"{name}_lo").value[:_ALIGNED]
            m.d.sync += wrong[i].eq(low.any())
            with m.If(wrong[i]):
                offset = csr.BY_NAME[f"{name.upper()}_LO"].offset
                m.d.comb += supervisor.misaligned.p.register.eq(offset)
        m.d.comb += [
            jobs.push.eq(registers.job_push_write & ~wrong.any()),
            supervisor.misaligned.valid.eq(registers.job_push_write & wrong.any()),
            *(jobs.job[name].eq(self._page(registers, name))
              for name in ("program", "input", "output")),
            jobs.job.count.eq(registers.program_count.value), jobs.job.task.eq(registers.task),
            jobs.clear.eq(supervisor.reset),
        ]

    def _watch(
        self, m: Module, registers: Any, supervisor: Supervisor, dispatcher: Dispatcher,
        stopped: Signal,
    ) -> None:
        """The limit of a job's time, and what shows where it stands."""
        m.submodules.watchdog = watchdog = Watchdog(unit=self._limit_cycles)
        m.d.comb += [
            watchdog.start.eq(dispatcher.start), watchdog.running.eq(dispatcher.running & ~stopped),
            watchdog.limit.eq(registers.cycle_limit.limit),
            supervisor.timeout.eq(watchdog.expired),
            registers.dispatched.value.eq(dispatcher.error.p.index),
            *(registers.progress[name].eq(self.finished[name]) for name in FINISHED.members),
        ]

    @staticmethod
    def _status(
        m: Module, registers: Any, supervisor: Supervisor, jobs: JobQueue, dispatcher: Dispatcher
    ) -> None:
        """What the host sees."""
        work = (dispatcher.running | jobs.o.valid) & ~supervisor.failed
        m.d.sync += [
            registers.status.busy.eq(work | supervisor.resetting),
            registers.status.error.eq(supervisor.failed),
            registers.status.bus_lost.eq(supervisor.lost),
            registers.status.space.eq(jobs.space),
        ]
        m.d.comb += [
            registers.jobs_done.value.eq(supervisor.jobs_done),
            registers.error_code.value.eq(supervisor.error_code),
            Cat(registers.error_info_lo.value, registers.error_info_hi.value).eq(
                supervisor.error_info
            ),
            registers.irq_status.done.eq(dispatcher.done),
            registers.irq_status.error.eq(supervisor.failure),
            registers.irq_status_clear.eq(supervisor.reset),
        ]
