"""A whole board under Verilator: its serial line, its SDRAM, and a pseudo-terminal for drivers."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitrify.arch.boards import BOARDS, standalone
from vitrify.arch.config import ArchConfig
from vitrify.arch.errors import BackendError
from vitrify.arch.sdram import SdramPart
from vitrify.boards.memory import require_bus
from vitrify.boards.sdram import ROUND_TRIP
from vitrify.boards.standalone import System

from .library import Say, board_library

#: Reset cycles, as a button gives many.
_RESET_CYCLES = 8
#: What the harness calls a fault of the memory controller.
_FAULTS = (
    "", "used a bank without an open row", "opened a bank that is open", "was too early",
    "forgot to refresh", "drove the data lines against the chip",
)


#: The chip of the board that is simulated unless told otherwise.
SDRAM = standalone(BOARDS["ulx3s"]).sdram


class SimulatedBoard:
    """A verilated :class:`~vitrify.boards.standalone.System`; not thread-safe.

    Parameters
    ----------
    arch : ArchConfig
        With a bus as wide as the memory.
    sdram : SdramPart
    divisor : int
        Cycles of a bit on the serial line: few, so that simulations are not all waiting.
    trace : Path, optional
        Waveform to write.
    say : told what takes time
    """

    def __init__(
        self,
        arch: ArchConfig,
        sdram: SdramPart = SDRAM,
        *,
        divisor: int = 4,
        trace: Path | None = None,
        say: Say = lambda _: None,
    ) -> None:
        from vitrify.rtl.lib.shared import to_verilog

        require_bus(arch, sdram)
        system = System(arch, sdram, clock_mhz=arch.clock_mhz, divisor=divisor)
        self.arch = arch
        say(f"elaborating {arch.name}")
        text = to_verilog(system, "vitrify_board")
        library = board_library(text, arch, sdram, fst=trace is not None, say=say)
        self._lib: Any = ctypes.CDLL(str(library))
        self._lib.vfb_create.restype = ctypes.c_void_p
        self._lib.vfb_memory.restype = ctypes.POINTER(ctypes.c_uint8)
        for name in ("waiting", "get", "cycle"):
            getattr(self._lib, f"vfb_{name}").restype = ctypes.c_uint64
        timing = (ctypes.c_uint32 * 10)(*_timing(sdram, arch.clock_mhz))
        self._board: ctypes.c_void_p | None = ctypes.c_void_p(
            self._lib.vfb_create(timing, ctypes.c_uint32(divisor))
        )
        if trace is not None and not self._lib.vfb_open_trace(self._board, str(trace).encode()):
            raise BackendError(f"the simulator cannot write the waveform {str(trace)!r}")
        memory = self._lib.vfb_memory(self._board)
        #: The SDRAM, byte by byte.
        self.memory: npt.NDArray[np.uint8] = np.ctypeslib.as_array(memory, (sdram.size,))
        self.reset()

    def reset(self) -> None:
        """Press the reset button."""
        self._lib.vfb_reset(self._board, ctypes.c_uint32(_RESET_CYCLES))

    def run(self, cycles: int) -> None:
        """Clock."""
        self._lib.vfb_run(self._board, ctypes.c_uint64(cycles))

    def put(self, data: bytes) -> None:
        """Queue bytes for the board's serial input."""
        self._lib.vfb_put(self._board, data, ctypes.c_uint64(len(data)))

    @property
    def waiting(self) -> int:
        """Bytes that the serial line has not carried yet."""
        return self._lib.vfb_waiting(self._board)

    def get(self, count: int = 1 << 16) -> bytes:
        """At most ``count`` bytes that the board has sent."""
        buffer = ctypes.create_string_buffer(count)
        got = self._lib.vfb_get(self._board, buffer, ctypes.c_uint64(count))
        return buffer.raw[:got]

    @property
    def cycle(self) -> int:
        """Cycles since the start."""
        return self._lib.vfb_cycle(self._board)

    @property
    def leds(self) -> int:
        """The LEDs."""
        return self._lib.vfb_leds(self._board)

    def fault(self) -> str:
        """What the memory controller did against the rules of its chip; empty when nothing."""
        number = self._lib.vfb_fault(self._board)
        return f"the memory controller {_FAULTS[number]}" if number else ""

    def close(self) -> None:
        """Destroy the simulation (and finish its waveform)."""
        if self._board is not None:
            self._lib.vfb_destroy(self._board)
            self._board = None


def _timing(part: SdramPart, clock_mhz: float) -> list[int]:
    """What the harness's memory asks for, in cycles and bits."""

    def cycles(nanoseconds: float) -> int:
        # Rounded up: the chip counts edges.
        return -int(-nanoseconds * clock_mhz // 1000)

    return [
        part.column_bits, part.bank_bits, part.row_bits,
        *(cycles(t) for t in (part.trcd, part.trp, part.tras, part.trfc, part.twr)),
        int(part.refresh * clock_mhz / 1000),
        part.cas_latency + ROUND_TRIP - 1,
    ]
