"""The C driver, compiled with an exported program and called through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from vitrify.arch.csr import ErrorCode
from vitrify.driver import LinkError, Transport
from vitrify.export import Run, export_files
from vitrify.program import Program
from vitrify.program.files import write_folder

#: What the driver promises to compile without a word.
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow",
         "-Wstrict-prototypes", "-Werror")
#: Units that need no operating system.
BARE = ("vitrify.c", "vitrify_pack.c", "vitrify_mapped.c")
#: The driver's own codes.
(OK, NO_CORE, WRONG_CORE, NO_ROOM, BAD_MEMORY, TIMED_OUT, RESET_STUCK, JOBS_LOST, QUEUE_FULL,
 NO_JOB, BAD_VALUE, LINK, BUSY) = range(0, -13, -1)
_SHIM = Path(__file__).with_suffix(".c")
_BYTES = ctypes.POINTER(ctypes.c_uint8)
_CALLS = {
    "read_register": (ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)),
    "write_register": (ctypes.c_uint32, ctypes.c_uint32),
    "read_memory": (ctypes.c_uint32, _BYTES, ctypes.c_uint32),
    "write_memory": (ctypes.c_uint32, _BYTES, ctypes.c_uint32),
    "wait": (),
    "milliseconds": (),
}
_TYPES = {name: ctypes.CFUNCTYPE(ctypes.c_uint32 if name == "milliseconds" else ctypes.c_int32,
                                 ctypes.c_void_p, *types) for name, types in _CALLS.items()}


class _Struct(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), *_TYPES.items(), ("memory_base", ctypes.c_uint64),
                ("memory_size", ctypes.c_uint32)]


def exported(program: Program, run: Run, folder: Path) -> Path:
    """The exported C files."""
    write_folder(folder, export_files(program, run))
    return folder / "c"


def compiled(folder: Path, *more: str, compiler: str = "gcc") -> ctypes.CDLL:
    """A library of the driver, the program in ``folder`` and the shim."""
    library = folder / "driver.so"
    subprocess.run(
        [compiler, *FLAGS, "-O2", "-fPIC", "-shared", "-I", folder, "-o", library,
         *(folder / unit for unit in (*BARE, "model.c", *more)), _SHIM],
        check=True, timeout=120,
    )
    loaded = ctypes.CDLL(str(library))
    loaded.test_info.restype = ctypes.c_uint64
    loaded.test_value.restype = ctypes.c_double
    return loaded


def pointer(array: np.ndarray) -> Any:
    """Where an array lies."""
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


class CDriver:
    """A session of the C driver over a transport of ours, timed by ``milliseconds``."""

    def __init__(self, library: ctypes.CDLL, program: Program, transport: Transport,
                 milliseconds: Any) -> None:
        self._library, self._program, self._transport = library, program, transport
        self._calls = {
            "read_register": self._read_register,
            "write_register": lambda _, offset, value: self._say(
                transport.write_register, offset, value),
            "read_memory": self._read_memory,
            "write_memory": lambda _, offset, data, size: self._say(
                transport.write_memory, offset, np.ctypeslib.as_array(data, (size,))),
            "wait": lambda _: self._say(transport.wait, 0.0),
            "milliseconds": lambda _: int(milliseconds()) & 0xFFFF_FFFF,
        }
        self._struct = _Struct(
            None, *(_TYPES[name](call) for name, call in self._calls.items()),
            transport.memory_base, transport.memory_size,
        )

    def _say(self, call: Any, *arguments: Any) -> int:
        try:
            call(*arguments)
        except LinkError:
            return LINK
        return OK

    def _read_register(self, _: Any, offset: int, value: Any) -> int:
        try:
            value[0] = self._transport.read_register(offset)
        except LinkError:
            return LINK
        return OK

    def _read_memory(self, _: Any, offset: int, data: Any, size: int) -> int:
        np.ctypeslib.as_array(data, (size,))[:] = self._transport.read_memory(offset, size)
        return OK

    def open(self, limit_ms: int = 2_000, cycle_limit: int = 0) -> int:
        """``vitrify_open``."""
        return self._library.test_open(ctypes.byref(self._struct), limit_ms, cycle_limit)

    def start(self, region: np.ndarray, task: int = 0) -> int:
        """``vitrify_start``."""
        return self._library.test_start(pointer(region), task)

    def wait(self) -> tuple[int, np.ndarray]:
        """``vitrify_wait``: the code, and the output region."""
        output = np.zeros(self._program.output_bytes, np.uint8)
        return self._library.test_wait(pointer(output)), output

    def run(self, regions: np.ndarray, tasks: Any = None) -> tuple[int, np.ndarray]:
        """All jobs, as many at a time as there is room: the first code that is none, or OK."""
        tasks = [0] * len(regions) if tasks is None else tasks
        outputs, pushed = [], 0
        while len(outputs) < len(regions):
            while pushed < len(regions) and pushed - len(outputs) < self._library.test_slots():
                if code := self.start(regions[pushed], tasks[pushed]):
                    return code, np.zeros(0, np.uint8)
                pushed += 1
            code, output = self.wait()
            if code:
                return code, output
            outputs.append(output)
        return OK, np.stack(outputs)

    @property
    def info(self) -> int:
        """``error_info`` of the session."""
        return self._library.test_info()


def error(code: int) -> str:
    """What a positive code is called in the contract."""
    return ErrorCode(code).name
