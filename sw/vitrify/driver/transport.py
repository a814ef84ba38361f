"""What a driver needs of the way to a core: registers, memory, and waiting."""

from __future__ import annotations

import abc
import time
import zlib
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vitrify.arch.errors import BackendError

from .lock import CoreLock

UInt8 = npt.NDArray[np.uint8]


class LinkError(BackendError):
    """The way to the core failed: nothing is known about the core itself."""


class Transport(abc.ABC):
    """A core, and a piece of the memory that it sees.

    Memory is addressed by offsets from the start of that piece; the core finds offset 0 at
    ``memory_base``.  Every method may raise :class:`LinkError`.
    """

    #: DRAM address of offset 0, a multiple of 4096.
    memory_base: int = 0
    #: Bytes that the driver may use.
    memory_size: int = 0
    #: Held by whoever uses the core; a transport to a device puts one on its file here.
    lock: CoreLock

    def __new__(cls, *_args: Any, **_settings: Any) -> Self:
        """Every transport has a lock, whatever its constructor does."""
        self = super().__new__(cls)
        self.lock = CoreLock()
        return self

    @abc.abstractmethod
    def read_register(self, offset: int) -> int:
        """Value of the register at a byte offset (see :mod:`vitrify.arch.csr`)."""

    @abc.abstractmethod
    def write_register(self, offset: int, value: int) -> None:
        """Write a register; it has happened exactly once when this returns."""

    @abc.abstractmethod
    def read_memory(self, offset: int, size: int) -> UInt8:
        """Bytes ``[size]`` from the memory; both numbers even."""

    @abc.abstractmethod
    def write_memory(self, offset: int, data: UInt8) -> None:
        """Bytes to the memory; offset and length even."""

    def checksum(self, offset: int, size: int) -> int:
        """CRC-32 (``zlib.crc32``) of a part of the memory; both numbers even."""
        return zlib.crc32(self.read_memory(offset, size).tobytes())

    def wait(self, seconds: float) -> None:
        """Return when the core may have something to say, after ``seconds`` at the latest."""
        time.sleep(seconds)

    def close(self) -> None:  # noqa: B027  (a transport may hold nothing)
        """Give back what is open."""
