"""Running a program on a simulated core: memory map, job queue, watchdog, cycles by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import csr
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError
from vitrify.arch.isa import Opcode, Region
from vitrify.arch.memmap import aligned
from vitrify.program import Program

from .core import SimulatedCore

UInt8 = npt.NDArray[np.uint8]
#: Called with MATMULs begun and MATMULs of all jobs.
Progress = Callable[[int, int], None]
#: Called with the records of a slice.
Inspect = Callable[[npt.NDArray[Any]], None]

#: Wall-clock time between two calls of ``progress``, and first guess of the cycles in it.
_SLICE_SECONDS = 0.2
_FIRST_SLICE = 2_000
#: Parts of the memory, as numbers of the states of the bus.
PARTS = {"instructions": 1, "weights": 2, "loads": 3}


@dataclass(frozen=True)
class Watched:
    """What the engines did; see :meth:`SimulatedCore.watched`.

    ``matmuls`` are the places in ``program.layers`` of the MATMULs that had rows, all jobs one
    after the other.
    """

    stretches: npt.NDArray[Any]
    read_bytes: npt.NDArray[np.uint32]
    matmuls: list[int]


@dataclass(frozen=True)
class JobResult:
    """What a batch cost, and its output regions ``[N, output_bytes]``."""

    outputs: UInt8
    counters: dict[str, int]
    #: Cycles of every entry of ``program.layers``, all images together; ``None`` without trace
    #: outputs.  A layer lasts from the end of the one before to its own last write.
    layer_cycles: list[int] | None
    #: How many jobs left each of them out, because their expert had no rows; as above.
    skipped: list[int] | None
    #: What the engines did, if somebody wanted to know.
    watched: Watched | None = None


def run_jobs(
    core: SimulatedCore,
    program: Program,
    regions: UInt8,
    *,
    tasks: Sequence[int] | None = None,
    progress: Progress = lambda *_: None,
    inspect: Inspect | None = None,
    bucket: int = 0,
) -> JobResult:
    """Run one job for each of the input regions ``[N, input_bytes]``, queued as far as they fit.

    ``tasks`` holds the register TASK of each job (default 0).  ``bucket``: keep what the
    engines do, and the bytes read in every so many cycles (0: neither).

    Raises
    ------
    BackendError
        If the core is another one, reports an error, breaks the bus protocol, or hangs.
    """
    run = _Run(core, program, regions, [0] * len(regions) if tasks is None else tasks)
    core.record(inspect is not None)
    run.start()
    if bucket:
        core.watch(run.parts(), bucket)
    slice_cycles, patience = _FIRST_SLICE, program.quiet_cycles
    last, idle = core.state(), 0
    while run.done < len(regions):
        run.push()
        begun = time.perf_counter()
        interrupt = core.run(slice_cycles)
        seconds = time.perf_counter() - begun
        state = core.state()
        if inspect is not None:
            inspect(core.take_records())
        if fault := core.fault():
            raise BackendError(f"the core {fault}, {run.where()}")
        if interrupt:
            run.acknowledge()
        elif (state.read_beats, state.write_beats, state.writes) == (
            last.read_beats,
            last.write_beats,
            last.writes,
        ):
            idle += state.cycle - last.cycle
            if idle > patience:
                raise BackendError(run.hang(idle))
        else:
            idle = 0
        last = state
        progress(min(run.matmuls(), run.total), run.total)
        if not interrupt:
            faster = _SLICE_SECONDS / max(seconds, 1e-6)
            slice_cycles = max(_FIRST_SLICE, int(slice_cycles * min(2.0, faster)))
    return run.result(bool(bucket))


class _Run:
    """Addresses and progress of one batch."""

    def __init__(
        self, core: SimulatedCore, program: Program, regions: UInt8, tasks: Sequence[int]
    ) -> None:
        self._core, self._program, self._jobs = core, program, len(regions)
        self._tasks = tasks
        self._in_step = aligned(program.input_bytes)
        self._out_step = aligned(program.output_bytes)
        self._inputs = aligned(len(program.image))
        self._outputs = self._inputs + self._jobs * self._in_step
        self.memory = np.zeros(self._outputs + self._jobs * self._out_step, np.uint8)
        self.memory[: len(program.image)] = program.image
        for job, region in enumerate(regions):
            at = self._inputs + job * self._in_step
            self.memory[at : at + len(region)] = region
        self.total = self._jobs * len(program.layers)
        self.pushed = self.done = 0
        self._first_matmul = self._start_cycle = 0

    def start(self) -> None:
        """Attach the memory, identify the core, prepare its registers."""
        core, program = self._core, self._program
        core.attach(self.memory)
        identify(core, program.arch)
        core.write("CONTROL", csr.BY_NAME["CONTROL"].mask)
        for name, value in (
            ("PROGRAM_BASE", 0),
            ("READ_BASE", 0),
            ("READ_LIMIT", len(self.memory)),
            ("WRITE_BASE", self._outputs),
            ("WRITE_LIMIT", len(self.memory)),
        ):
            _write_wide(core, name, value)
        core.write("PROGRAM_COUNT", program.instruction_count)
        core.write("IRQ_STATUS", csr.BY_NAME["IRQ_STATUS"].mask)
        core.write("IRQ_ENABLE", csr.BY_NAME["IRQ_ENABLE"].mask)
        self._first_matmul = core.state().matmuls
        self._start_cycle = core.state().cycle

    def parts(self) -> dict[int, int]:
        """What begins where in the memory, for :meth:`SimulatedCore.watch`."""
        found = {0: PARTS["instructions"]}
        for op in self._program.instructions():
            if op.opcode is Opcode.MATMUL and op.stream_words:
                found[op.stream_offset] = PARTS["weights"]
            elif op.opcode in (Opcode.LOAD, Opcode.LOAD_INDEX) and op.region == Region.PROGRAM:
                found[op.offset] = PARTS["loads"]
        return found | {self._inputs: PARTS["loads"]}

    def push(self) -> None:
        """Queue as many jobs as there is room for."""
        if self.pushed == self._jobs:
            return
        core = self._core
        space = csr.BY_NAME["STATUS"].field("space").of(core.read("STATUS"))
        for _ in range(min(space, self._jobs - self.pushed)):
            _write_wide(core, "INPUT_BASE", self._inputs + self.pushed * self._in_step)
            _write_wide(core, "OUTPUT_BASE", self._outputs + self.pushed * self._out_step)
            core.write("TASK", self._tasks[self.pushed])
            core.write("JOB_PUSH", 1)
            self.pushed += 1

    def acknowledge(self) -> None:
        """Clear the interrupt; count jobs, or report the core's error."""
        core = self._core
        status = core.read("IRQ_STATUS")
        core.write("IRQ_STATUS", status)
        if csr.BY_NAME["IRQ_STATUS"].field("error").of(status):
            raise BackendError(f"the core stopped: {self._error()}, {self.where()}")
        self.done = core.read("JOBS_DONE")

    def matmuls(self) -> int:
        """MATMULs of this batch that have begun to write."""
        return self._core.state().matmuls - self._first_matmul

    def where(self) -> str:
        """The layer in progress and the cycle."""
        begun, layers = self.matmuls(), self._program.layers
        cycle = self._core.state().cycle
        if not begun or not layers:
            return f"in cycle {cycle}, before the first result"
        image, layer = divmod(begun - 1, len(layers))
        return f"in cycle {cycle}, image {image}, at or after layer {layers[layer].name!r}"

    def hang(self, idle: int) -> str:
        """Everything that helps to find out why nothing happens."""
        core = self._core
        try:
            counters = {k: v for k, v in core.counters().items() if v}
            status = f"STATUS 0x{core.read('STATUS'):x}, {self._error()}"
        except BackendError as error:
            counters, status = {}, str(error)
        counted = ", ".join(f"{k} {v}" for k, v in counters.items()) or "none"
        return (
            f"the core has done nothing for {idle} cycles, {self.where()}; {self.done} of "
            f"{self._jobs} jobs are done; {status}; counters: {counted}"
        )

    def _error(self) -> str:
        code = self._core.read("ERROR_CODE")
        info = self._core.read("ERROR_INFO_LO") | self._core.read("ERROR_INFO_HI") << 32
        known = code in list(csr.ErrorCode)
        return f"{csr.ErrorCode(code).name if known else code} (info 0x{info:x})"

    def result(self, watch: bool) -> JobResult:
        """Outputs and cost."""
        program, core = self._program, self._core
        outputs = self.memory[self._outputs :].reshape(self._jobs, self._out_step)
        cycles = skipped = watched = None
        spans = core.spans()[self._first_matmul :].astype(np.int64)
        if len(spans) and may_leave_out(program, self.total - len(spans)):
            # Left out: nothing was written before the next one began to write, or any more.
            idle = np.append(spans[:-1, 1] == spans[1:, 0], False)
            rest = self.total - len(spans)
            spans = np.concatenate([spans, spans[-1:].repeat(rest, axis=0)])
            idle = np.concatenate([idle, np.ones(rest, bool)])
            ends = np.concatenate([[self._start_cycle], np.where(idle, 0, spans[:, 1])])
            per = np.diff(np.maximum.accumulate(ends)).reshape(self._jobs, len(program.layers))
            cycles = per.sum(axis=0).tolist()
            skipped = idle.reshape(per.shape).sum(axis=0).tolist()
            if watch:
                matmuls = np.flatnonzero(~idle) % len(program.layers)
                watched = Watched(*core.watched(), matmuls.tolist())
        return JobResult(
            outputs[:, : program.output_bytes].copy(), core.counters(), cycles, skipped, watched
        )


def may_leave_out(program: Program, count: int) -> bool:
    """Whether a core may end a job without the last ``count`` MATMULs: experts of nobody."""
    if count <= 0:
        return count == 0
    matmuls = [op for op in program.instructions() if op.opcode is Opcode.MATMUL]
    return count <= len(matmuls) and all(op.expert_rows for op in matmuls[-count:])


def identify(core: SimulatedCore, arch: ArchConfig) -> None:
    """Refuse a core that is none, or of another architecture."""
    if core.read("MAGIC") != csr.MAGIC:
        raise BackendError(f"the simulated core answers 0x{core.read('MAGIC'):08x}, not 'VTFY'")
    found = core.read("ARCH_HASH")
    if found != arch.hash:
        raise BackendError(
            f"the simulated core has arch hash {found:08x}, and {arch.name!r} has {arch.hash:08x}"
        )


def _write_wide(core: SimulatedCore, name: str, value: int) -> None:
    core.write(f"{name}_LO", value & 0xFFFF_FFFF)
    core.write(f"{name}_HI", value >> 32)
