"""Transport on Linux without a framework: a UIO device and a contiguous buffer (u-dma-buf).

The device tree names both: ``compatible = "generic-uio"`` for the core's registers and its
interrupt, ``ikwzm,u-dma-buf`` for the buffer; the kernel takes the former with
``uio_pdrv_genirq.of_id=generic-uio`` on its command line.  Without an interrupt the registers are
polled.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from vitrify.arch import csr
from vitrify.arch.errors import InputError

from .barrier import barrier
from .lock import CoreLock
from .transport import LinkError, Transport, UInt8

#: Where the kernel describes buffers.
CLASS = Path("/sys/class/u-dma-buf")
#: Seconds between two looks at a core without an interrupt.
_POLL = 0.0005


class MappedTransport(Transport):
    """Registers and memory as arrays of this process.

    Processors reorder accesses to the two: what was written to the memory is complete before a
    register is written, and nothing of it is read before a register that was asked for.

    Parameters
    ----------
    registers : uint32 array over the core's registers
    memory : uint8 array over the buffer, not cached
    memory_base : int
        Its physical address.
    """

    def __init__(self, registers: np.ndarray, memory: UInt8, memory_base: int) -> None:
        self._registers = registers
        self._memory = memory
        self.memory_base = memory_base
        self.memory_size = len(memory)

    def read_register(self, offset: int) -> int:
        """See :class:`Transport`."""
        value = int(self._registers[offset // 4])
        barrier()
        return value

    def write_register(self, offset: int, value: int) -> None:
        """See :class:`Transport`."""
        barrier()
        self._registers[offset // 4] = value

    def read_memory(self, offset: int, size: int) -> UInt8:
        """See :class:`Transport`."""
        return np.array(self._memory[offset : offset + size])

    def write_memory(self, offset: int, data: UInt8) -> None:
        """See :class:`Transport`."""
        self._memory[offset : offset + len(data)] = data


class UioTransport(MappedTransport):
    """A core behind ``/dev/uioN`` and a buffer ``/dev/udmabufN``.

    Parameters
    ----------
    uio : str
        Device file of the registers.
    buffer : str
        Name of the buffer, for instance ``udmabuf0``.
    devices, buffers : Path
        Where device files and their descriptions are.

    Raises
    ------
    InputError
        If a device is missing or may not be opened; the message says which.
    """

    def __init__(
        self, uio: str = "/dev/uio0", buffer: str = "udmabuf0", *,
        devices: Path = Path("/dev"), buffers: Path = CLASS,
    ) -> None:
        size, base = (_number(buffers / buffer / name) for name in ("size", "phys_addr"))
        # O_SYNC: neither side keeps the buffer in a cache.
        self._files = [_open(Path(uio)), _open(devices / buffer)]
        self._uio = self._files[0]
        self.lock = CoreLock(self._uio)
        self._interrupt = True
        self._maps = [
            _map(self._files[0], 1 << csr.CSR_ADDRESS_BITS), _map(self._files[1], size)
        ]
        super().__init__(
            np.frombuffer(self._maps[0], "<u4"), np.frombuffer(self._maps[1], np.uint8), base
        )

    def wait(self, seconds: float) -> None:
        """Sleep until the interrupt; without one, for a moment."""
        if self._interrupt:
            try:
                os.write(self._uio, (1).to_bytes(4, "little"))  # let it through once
            except OSError as error:
                # The kernel's answer where the device tree names no interrupt.
                if error.errno != errno.EIO:
                    raise LinkError(f"cannot wait for the interrupt: {error.strerror}") from error
                self._interrupt = False
        if not self._interrupt:
            time.sleep(min(seconds, _POLL))
            return
        ready, _, _ = select.select([self._uio], [], [], seconds)
        if ready:
            os.read(self._uio, 4)

    def close(self) -> None:
        """Close the devices."""
        self._registers = self._memory = np.zeros(0, np.uint8)
        for mapped in self._maps:
            mapped.close()
        for file in self._files:
            os.close(file)
        self._maps, self._files = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _number(path: Path) -> int:
    try:
        return int(path.read_text().strip(), 0)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {str(path)!r} of the buffer: {error}; is u-dma-buf loaded?"
        ) from error


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_SYNC)
    except OSError as error:
        raise InputError(f"cannot open the device {str(path)!r}: {error.strerror}") from error


def _map(file: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(file, size)
    except (OSError, ValueError) as error:
        raise LinkError(f"cannot map a device: {error}") from error
