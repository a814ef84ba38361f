"""The driver of a core, whatever the way to it: weights once, jobs queued, errors named."""

from __future__ import annotations

import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from vitrify.arch import csr, isa
from vitrify.arch.config import CONTRACT_VERSION, ArchConfig
from vitrify.arch.csr import ErrorCode
from vitrify.arch.errors import BackendError
from vitrify.arch.memmap import SIGNATURE_BYTES, aligned

from .lock import PATIENCE
from .transport import Transport, UInt8

#: Longest wait between two looks at a core.
_LOOK = 0.005
#: The program is uploaded and compared in blocks of so many bytes.
_BLOCK = 1 << 14
_COUNTER_NAMES = tuple(name for name, _doc in csr.COUNTERS)


class CoreError(BackendError):
    """The core stopped with an error; ``code`` and ``info`` are its error registers."""

    def __init__(self, code: int, info: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.info = info


@dataclass(frozen=True)
class Loaded:
    """A program in the core's memory: offsets in bytes, ``slots`` jobs at a time."""

    image: UInt8
    instructions: int
    inputs: int
    input_step: int
    outputs: int
    output_step: int
    slots: int

    @property
    def end(self) -> int:
        """First offset behind everything."""
        return self.outputs + self.slots * self.output_step


class CoreDriver:
    """One core, which other drivers may use between the calls of this one.

    Whoever uploads a program signs it at the end of the memory; a driver that does not find its
    own signature uploads again what differs.

    Parameters
    ----------
    transport : Transport
    arch : ArchConfig
        What the programs are made for.
    patience : float
        Seconds without progress after which a run is given up, and that another process may
        keep the core.

    Raises
    ------
    BackendError
        If there is no core, or one of another contract.
    """

    def __init__(
        self, transport: Transport, arch: ArchConfig, *, patience: float = PATIENCE
    ) -> None:
        self._transport = transport
        self._arch = arch
        self._patience = patience
        self._loaded: Loaded | None = None
        self._certain = False
        self._signature = np.zeros(SIGNATURE_BYTES, np.uint8)
        #: Bytes of programs that went over the transport.
        self.uploaded = 0
        with self.exclusive():
            self._identify()

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else off the core: its threads wait, other processes for `patience`.

        Raises
        ------
        BackendError
            If another process does not let go of it.
        """
        return self._transport.lock.held(self._patience)

    def _identify(self) -> None:
        magic, version = self.read("MAGIC"), self.read("VERSION")
        if magic != csr.MAGIC:
            raise BackendError(f"there is no core: its MAGIC reads 0x{magic:08x}, not 'VTFY'")
        found, wanted = self.read("ARCH_HASH"), self._arch.hash
        if found != wanted or version != CONTRACT_VERSION:
            raise BackendError(
                f"the core has arch hash {found:08x} and contract {version}, and the program is "
                f"for {self._arch.name!r}, {wanted:08x} and {CONTRACT_VERSION}; compile it for the "
                f"core, or build the core for it"
            )

    # Registers -----------------------------------------------------------------------------
    def read(self, name: str) -> int:
        """A register by its name in :mod:`vitrify.arch.csr`."""
        return self._transport.read_register(csr.BY_NAME[name].offset)

    def write(self, name: str, value: int) -> None:
        """Write a register."""
        self._transport.write_register(csr.BY_NAME[name].offset, value)

    def read_wide(self, name: str) -> int:
        """A pair of registers ``{name}_LO`` and ``{name}_HI``."""
        return self.read(f"{name}_LO") | self.read(f"{name}_HI") << 32

    def write_wide(self, name: str, value: int) -> None:
        """Write a pair of registers."""
        self.write(f"{name}_LO", value & 0xFFFF_FFFF)
        self.write(f"{name}_HI", value >> 32)

    def _do(self, register: str, *fields: str) -> None:
        found = csr.BY_NAME[register]
        self.write(register, sum(found.field(name).mask for name in fields))

    def _status(self) -> dict[str, int]:
        value = self.read("STATUS")
        return {field.name: field.of(value) for field in csr.BY_NAME["STATUS"].fields}

    def counters(self) -> dict[str, int]:
        """Every performance counter."""
        return {name: self.read_wide(name) for name in _COUNTER_NAMES}

    # Program -------------------------------------------------------------------------------
    def load(
        self, image: UInt8, instructions: int, input_bytes: int, output_bytes: int, jobs: int = 1
    ) -> None:
        """Put a program into memory, where it is not already, and verify it.

        ``jobs`` may lie in memory at a time, if there is room, at most the queue's depth.

        Raises
        ------
        BackendError
            If it does not fit, or the memory does not hold what was written.
        """
        step_in, step_out = aligned(input_bytes), aligned(output_bytes)
        inputs, size = aligned(len(image)), self._transport.memory_size
        room = max(0, size - SIGNATURE_BYTES - inputs)
        slots = min(jobs, csr.QUEUE_DEPTH, room // (step_in + step_out))
        if slots < 1:
            need = inputs + step_in + step_out + SIGNATURE_BYTES
            raise BackendError(
                f"the program needs {need} bytes of memory, and the core's has {size}"
            )
        self._loaded = Loaded(
            image, instructions, inputs, step_in, inputs + slots * step_in, step_out, slots
        )
        self._certain = False
        with self.exclusive():
            self._reset()
            self._upload()

    def _signed(self) -> bool:
        """Whether the program in memory is the one that this driver put there last."""
        found = self._transport.read_memory(self._signature_offset, SIGNATURE_BYTES)
        return bool((found == self._signature).all())

    @property
    def _signature_offset(self) -> int:
        return self._transport.memory_size // 2 * 2 - SIGNATURE_BYTES

    def _upload(self) -> None:
        """Blocks that differ go over the transport; then every block is right, and signed."""
        assert self._loaded is not None
        image, transport = self._loaded.image, self._transport
        # Whoever is interrupted here leaves a memory that no driver takes for its own.
        transport.write_memory(self._signature_offset, np.zeros(SIGNATURE_BYTES, np.uint8))
        for at in range(0, len(image), _BLOCK):
            block = image[at : at + _BLOCK]
            if len(block) % 2:
                block = np.append(block, np.uint8(0))
            wanted = zlib.crc32(block.tobytes())
            if transport.checksum(at, len(block)) == wanted:
                continue
            transport.write_memory(at, block)
            self.uploaded += len(block)
            if transport.checksum(at, len(block)) != wanted:
                raise BackendError(
                    f"the memory does not hold what was written to it, between "
                    f"0x{transport.memory_base + at:x} and 0x"
                    f"{transport.memory_base + at + len(block):x}"
                )
        self._signature = np.frombuffer(secrets.token_bytes(SIGNATURE_BYTES), np.uint8)
        transport.write_memory(self._signature_offset, self._signature)
        self._certain = True

    # Jobs ----------------------------------------------------------------------------------
    def run(
        self,
        regions: UInt8,
        output_bytes: int,
        tasks: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> UInt8:
        """Input regions ``[jobs, input_bytes]`` to output regions ``[jobs, output_bytes]``.

        ``progress`` is told jobs done and jobs in all.

        Raises
        ------
        CoreError
            If the core stops with an error.
        LinkError
            If the transport fails.
        BackendError
            If the core does nothing for too long, was reset by somebody else, or is in use.
        """
        assert self._loaded is not None, "load() comes first"
        with self.exclusive():
            lock = self._transport.lock
            if lock.running:
                raise BackendError("a run is in progress; its progress cannot start another")
            lock.running = True
            try:
                return self._run(self._loaded, regions, output_bytes, tasks, progress)
            finally:
                lock.running = False

    def _run(
        self, place: Loaded, regions: UInt8, output_bytes: int, tasks: Sequence[int] | None,
        progress: Callable[[int, int], None],
    ) -> UInt8:
        # Whatever happened before: an error, a host that died, somebody else's job.
        self._reset()
        if not (self._certain and self._signed()):
            self._upload()
        self._certain = False
        self._prepare(place)
        words = [0] * len(regions) if tasks is None else tasks
        outputs = np.zeros((len(regions), output_bytes), np.uint8)
        pushed = done = 0
        watch = _Watch(self, self._patience)
        while done < len(regions):
            while pushed < len(regions) and pushed - done < place.slots:
                self._push(place, pushed, regions[pushed], words[pushed])
                pushed += 1
            finished = self._finished(done, pushed)
            if finished == done:
                watch.look()
                self._transport.wait(_LOOK)
                continue
            for job in range(done, finished):
                at = place.outputs + job % place.slots * place.output_step
                size = aligned_even(output_bytes)
                outputs[job] = self._transport.read_memory(at, size)[:output_bytes]
            done = finished
            watch.progress()
            progress(done, len(regions))
        self._certain = True
        return outputs

    def _reset(self) -> None:
        self._do("CONTROL", "reset", "clear_counters")
        watch = time.monotonic() + self._patience
        while self._status()["busy"]:
            if time.monotonic() > watch:
                raise BackendError(
                    "the core does not come out of its reset: its bus waits for the memory; "
                    "reset the board"
                )
            self._transport.wait(_LOOK)
        if self._status()["bus_lost"]:
            raise BackendError(
                "the memory does not answer what the core asked it before; reset the board"
            )

    def _prepare(self, place: Loaded) -> None:
        base = self._transport.memory_base
        # Limits first: should a reset come in between, the windows stay shut.
        for name, value in (
            ("PROGRAM_BASE", 0),
            ("READ_LIMIT", place.end),
            ("READ_BASE", 0),
            ("WRITE_LIMIT", place.end),
            ("WRITE_BASE", place.outputs),
        ):
            self.write_wide(name, base + value)
        self.write("PROGRAM_COUNT", place.instructions)
        self.write("CYCLE_LIMIT", 0)
        self._do("IRQ_STATUS", "done", "error")
        self._do("IRQ_ENABLE", "done", "error")

    def _push(self, place: Loaded, job: int, region: UInt8, task: int) -> None:
        transport, slot = self._transport, job % place.slots
        source = place.inputs + slot * place.input_step
        if len(region) % 2:
            region = np.append(region, np.uint8(0))
        transport.write_memory(source, region)
        self.write_wide("INPUT_BASE", transport.memory_base + source)
        target = place.outputs + slot * place.output_step
        self.write_wide("OUTPUT_BASE", transport.memory_base + target)
        self.write("TASK", task)
        self.write("JOB_PUSH", 1)

    def _finished(self, done: int, pushed: int) -> int:
        """Jobs that are done, if the core is well."""
        status = self._status()
        if status["error"]:
            raise self._error()
        finished = self.read("JOBS_DONE")
        if status["busy"]:
            if not done <= finished <= pushed:
                raise _stranger()
        elif finished != pushed or self.read_wide("READ_LIMIT") == 0:
            # It may have stopped between the two looks.
            if self._status()["error"]:
                raise self._error()
            raise _stranger()
        self._do("IRQ_STATUS", "done")
        return finished

    def _error(self) -> CoreError:
        code, info = self.read("ERROR_CODE"), self.read_wide("ERROR_INFO")
        name = ErrorCode(code).name if code in list(ErrorCode) else f"error {code}"
        if code in (ErrorCode.ILLEGAL_INSTRUCTION, ErrorCode.TIMEOUT):
            at = self._transport.memory_base + info * isa.INSTRUCTION_BYTES
            where = f"instruction {info} at address 0x{at:x}"
        elif code == ErrorCode.MISALIGNED:
            where = f"register 0x{info:x}"
        else:
            where = f"address 0x{info:x}"
        return CoreError(code, info, f"the core stopped: {name}, {where}")


def aligned_even(size: int) -> int:
    """``size`` rounded up to whole words of the narrowest memory."""
    return size + size % 2


def _stranger() -> BackendError:
    return BackendError(
        "the core lost its jobs: somebody reset the board or uses it, too; run again"
    )


class _Watch:
    """Gives up when the core shows no progress."""

    def __init__(self, driver: CoreDriver, patience: float) -> None:
        self._driver = driver
        self._patience = patience
        self._last = -1
        self.progress()

    def progress(self) -> None:
        """A job is done."""
        self._deadline = time.monotonic() + self._patience

    def look(self) -> None:
        """Bytes on the bus are progress, too."""
        if time.monotonic() < self._deadline:
            return
        beats = self._driver.read("DRAM_READ_BEATS_LO") + self._driver.read("ARRAY_BUSY_LO")
        if beats != self._last:
            self._last = beats
            self.progress()
            return
        counted = ", ".join(f"{k} {v}" for k, v in self._driver.counters().items() if v)
        raise BackendError(
            f"the core has done nothing for {self._patience:g} s; STATUS "
            f"0x{self._driver.read('STATUS'):x}; counters: {counted or 'none'}"
        )
