"""A simulated core: a built library, driven through registers and a DRAM that NumPy holds."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch import csr
from vitrify.arch.config import ArchConfig
from vitrify.arch.dram import MAX_LATENCY, MAX_OUTSTANDING, UNIT, Dram, DramCycles
from vitrify.arch.errors import BackendError, InputError

#: Cycles that reset is held, and that a register access may take.
RESET_CYCLES = 8
CSR_LIMIT = 10_000
_NOT_SHARED = Dram().cycles(1.0)
#: Engines in the harness's order.
ENGINES = (
    "instructions", "loader", "array", "epilogue", "router", "loads", "stores", "bus",
)  # fmt: skip
_STRETCH = np.dtype(
    [("begin", "<u8"), ("end", "<u8"), ("number", "<u4"), ("engine", "u1"), ("state", "u1"),
     ("pad", "V2")]
)
#: Windows of a waveform that are open at their end.
_EVER, _ALL = (1 << 64) - 1, (1 << 32) - 1
#: Bytes of a record's byte mask.
_MASK_BYTES = 16
#: What the harness calls protocol errors, by number.
_FAULTS = (
    "",
    "read outside the DRAM",
    "wrote outside the DRAM",
    "let a burst cross a 4 KiB boundary",
    "marked the wrong beat of a burst as its last",
    "used beats narrower than the bus",
)


@dataclass(frozen=True, kw_only=True)
class DramModel:
    """The memory behind the bus.

    ``bytes_per_cycle`` bounds each direction (default: one beat); with ``stall`` each handshake
    is refused with that probability in a cycle.  ``shared``: all ports and both directions share
    the data bus of this memory.
    """

    latency: int
    outstanding: int
    bytes_per_cycle: float | None = None
    stall: float = 0.0
    seed: int = 1
    shared: DramCycles | None = None

    @classmethod
    def of(cls, arch: ArchConfig, **changes: Any) -> DramModel:
        """The memory of an architecture."""
        dram = arch.dram
        return cls(**{
            "latency": dram.latency, "outstanding": dram.outstanding,
            "shared": dram.cycles(arch.clock_mhz) if dram.bandwidth else None, **changes,
        })

    def __post_init__(self) -> None:
        rate = self.bytes_per_cycle
        for name, value, low, high in (
            ("latency", self.latency, 0, MAX_LATENCY),
            ("outstanding bursts", self.outstanding, 1, MAX_OUTSTANDING),
        ):
            if not low <= value <= high:
                raise InputError(f"DRAM {name} must be {low} to {high}, not {value}")
        if rate is not None and not 0.001 <= rate < float("inf"):
            raise InputError(f"DRAM bandwidth must be at least 0.001 bytes a cycle, not {rate}")
        if not 0 <= self.stall < 1:
            raise InputError(f"the stall probability must be below 1, not {self.stall}")


@dataclass(frozen=True)
class Waveform:
    """A waveform to write (FST), or a part of one."""

    file: Path
    #: Levels of the hierarchy; 1: the core's ports and the wires between its units.
    depth: int = 99
    #: First cycle, and the one behind the last; cycles count from the start of the simulation.
    cycles: tuple[int, int] = (0, _EVER)
    #: First and last MATMUL of the simulation (those that are skipped do not count): from the
    #: beginning of the one before, while weights come, to the first result of the one behind.
    matmuls: tuple[int, int] = (0, _ALL)


class Misfortune(enum.IntEnum):
    """What the memory can do wrong, after ``after`` events, with ``value``."""

    NONE = 0
    #: A beat that is read has this response.
    READ_ERROR = 1
    #: A write burst has this response.
    WRITE_ERROR = 2
    #: After so many cycles the memory does nothing for so many.
    STANDSTILL = 3


@dataclass(frozen=True)
class State:
    """Where a simulation stands.  Cycles count from the start, resets included.

    Beats are those of a port.
    """

    cycle: int
    read_beats: int
    write_beats: int
    #: MATMULs that have begun to write.
    matmuls: int
    records: int
    fault: int
    fault_address: int
    #: Writes of the epilogue.
    writes: int


class SimulatedCore:
    """One verilated core; not thread-safe.

    Parameters
    ----------
    library : Path
        From :func:`vitrify.cosim.library.core_library`.
    arch : ArchConfig
        The core in it.
    dram : DramModel
    trace : Waveform, optional
        The library must be built with ``fst``.
    """

    def __init__(
        self, library: Path, arch: ArchConfig, dram: DramModel, trace: Waveform | None = None
    ) -> None:
        self.arch = arch
        try:
            self._lib: Any = ctypes.CDLL(str(library))
        except OSError as error:
            raise BackendError(f"cannot load the simulator {str(library)!r}: {error}") from error
        self._lib.vfy_create.restype = ctypes.c_void_p
        self._lib.vfy_record_bytes.restype = ctypes.c_uint64
        self._record = np.dtype(
            [
                ("cycle", "<u8"),
                ("matmul", "<u4"),
                ("address", "<u4"),
                ("wide", "u1"),
                ("pad", "V7"),
                ("mask", "u1", _MASK_BYTES),
                ("low", "u1", arch.depth),
                ("high", "u1", arch.depth),
            ],
            align=True,
        )
        if self._lib.vfy_record_bytes() != self._record.itemsize:
            raise BackendError(f"the simulator {str(library)!r} was built for another arch")
        self._core: ctypes.c_void_p | None = ctypes.c_void_p(self._lib.vfy_create())
        self._memory: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        beats = (dram.bytes_per_cycle or arch.bus_bytes) / arch.bus_bytes
        shared = dataclasses.astuple(dram.shared or _NOT_SHARED)
        self._lib.vfy_dram(
            self._core,
            dram.latency,
            dram.outstanding,
            max(1, min(UNIT, round(beats * UNIT))),
            round(dram.stall * UNIT),
            dram.seed,
            (ctypes.c_uint32 * len(shared))(*shared),
        )
        if trace is not None and not self._lib.vfy_open_trace(
            self._core, str(trace.file).encode(), ctypes.c_uint32(trace.depth),
            *map(ctypes.c_uint64, trace.cycles), *map(ctypes.c_uint32, trace.matmuls),
        ):
            raise BackendError(f"the simulator cannot write the waveform {str(trace.file)!r}")
        self.reset()

    def reset(self) -> None:
        """Pull the reset line."""
        self._lib.vfy_reset(self._core, RESET_CYCLES)

    def attach(self, memory: npt.NDArray[np.uint8]) -> None:
        """Let ``memory`` be the DRAM, from address 0 on; the core reads and writes it in place."""
        assert memory.dtype == np.uint8
        assert memory.flags.c_contiguous
        assert memory.flags.writeable
        self._memory = memory
        self._lib.vfy_memory(
            self._core, memory.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(len(memory))
        )

    def write(self, register: str, value: int) -> None:
        """Write a register by its name in :mod:`vitrify.arch.csr`."""
        address = csr.BY_NAME[register].offset
        if not self._lib.vfy_csr_write(self._core, address, ctypes.c_uint32(value), CSR_LIMIT):
            raise BackendError(f"the core did not take a write to its register {register}")

    def read(self, register: str) -> int:
        """Read a register."""
        value = ctypes.c_uint32()
        address = csr.BY_NAME[register].offset
        if not self._lib.vfy_csr_read(self._core, address, ctypes.byref(value), CSR_LIMIT):
            raise BackendError(f"the core did not answer a read of its register {register}")
        return value.value

    def counters(self) -> dict[str, int]:
        """Every performance counter."""
        return {
            name: self.read(f"{name}_LO") | self.read(f"{name}_HI") << 32
            for name, _doc in csr.COUNTERS
        }

    def run(self, cycles: int) -> bool:
        """Clock until an interrupt, at most ``cycles``; whether the interrupt line is high."""
        return bool(self._lib.vfy_run(self._core, ctypes.c_uint64(cycles)))

    def state(self) -> State:
        """Counts of the harness."""
        values = (ctypes.c_uint64 * 8)()
        self._lib.vfy_state(self._core, values)
        return State(*values)

    def fault(self) -> str:
        """What the core did against the bus protocol; empty when nothing."""
        state = self.state()
        return f"{_FAULTS[state.fault]} at 0x{state.fault_address:x}" if state.fault else ""

    def order(self, misfortune: Misfortune, after: int, value: int) -> None:
        """Let something go wrong once; see :class:`Misfortune` for the numbers."""
        self._lib.vfy_misfortune(
            self._core, int(misfortune), ctypes.c_uint64(after), ctypes.c_uint32(value)
        )

    @property
    def happened(self) -> bool:
        """Whether the misfortune ordered last has happened."""
        return bool(self._lib.vfy_happened(self._core))

    def extent(self) -> tuple[range, range]:
        """Addresses that bursts have read, and written, since the last call."""
        values = (ctypes.c_uint64 * 4)()
        self._lib.vfy_extent(self._core, values)
        return range(values[0], values[1] + 1), range(values[2], values[3] + 1)

    def record(self, on: bool) -> None:
        """Keep what the epilogue writes from now on."""
        self._lib.vfy_record(self._core, int(on))

    def take_records(self) -> npt.NDArray[Any]:
        """Records so far (fields cycle, matmul, address, wide, mask, low, high), then forget them.

        ``matmul`` counts from 0 at the core's start.
        """
        records = np.zeros(self.state().records, self._record)
        self._lib.vfy_take_records(self._core, records.ctypes.data_as(ctypes.c_void_p))
        return records

    def watch(self, parts: Mapping[int, int], bucket: int) -> None:
        """Keep what the engines do from now on, and the bytes read in every ``bucket`` cycles.

        ``parts``: what begins where in the memory, by its first byte, 0 included; numbers 1 to 255.
        """
        bounds = np.array(sorted(parts), np.uint64)
        kinds = np.array([parts[int(first)] for first in bounds], np.uint8)
        self._lib.vfy_watch(
            self._core, bounds.ctypes.data_as(ctypes.c_void_p),
            kinds.ctypes.data_as(ctypes.c_void_p), len(bounds), bucket,
        )

    def watched(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint32]]:
        """What the engines did, and bytes read in every bucket since the start.

        Fields of the first: begin, end (cycles), number (of the MATMUL, ROUTE or instruction),
        engine (place in :data:`ENGINES`), state (what the harness says, not 0).
        """
        sizes = (ctypes.c_uint64 * 2)()
        self._lib.vfy_watched(self._core, sizes)
        stretches, read = np.zeros(sizes[0], _STRETCH), np.zeros(sizes[1], np.uint32)
        self._lib.vfy_take_watched(
            self._core, stretches.ctypes.data_as(ctypes.c_void_p),
            read.ctypes.data_as(ctypes.c_void_p),
        )
        return stretches, read

    def spans(self) -> npt.NDArray[np.uint64]:
        """First and last write cycle of every MATMUL since the start, ``[matmuls, 2]``."""
        spans = np.zeros((self.state().matmuls, 2), np.uint64)
        self._lib.vfy_spans(self._core, spans.ctypes.data_as(ctypes.c_void_p))
        return spans

    def close(self) -> None:
        """Destroy the simulation (and finish its waveform)."""
        if self._core is not None:
            self._lib.vfy_destroy(self._core)
            self._core = None
