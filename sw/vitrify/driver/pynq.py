"""Transport on a board with PYNQ: the bitstream is loaded, registers and memory come from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vitrify.arch import csr
from vitrify.arch.errors import InputError

from .lock import CoreLock
from .transport import UInt8
from .uio import MappedTransport

#: Bytes of contiguous memory for the program and its jobs.
BUFFER_BYTES = 64 << 20
#: How a core is known in the hardware description: part of its IP type.
IP_TYPE = "vitrify"


class PynqTransport(MappedTransport):
    """A core in a PYNQ overlay.

    Parameters
    ----------
    bitfile : str
        ``.bit`` (with its ``.hwh`` beside it) or ``.xsa``.
    ip : str, optional
        Name of the core in the overlay; default: the only one of our type.
    memory : int
        Bytes to allocate.

    Raises
    ------
    InputError
        Without PYNQ, the file, or the core in it.
    """

    def __init__(self, bitfile: str, ip: str | None = None, memory: int = BUFFER_BYTES) -> None:
        if not Path(bitfile).is_file():
            raise InputError(f"there is no bitstream {bitfile!r}")
        try:
            import pynq  # pyright: ignore[reportMissingImports]  (only boards have it)
        except ImportError:
            raise InputError(
                "the board's backend 'pynq' needs the package pynq, which PYNQ images bring along"
            ) from None
        overlay: Any = pynq.Overlay(bitfile)
        name = ip or _find(overlay.ip_dict, bitfile)
        if name not in overlay.ip_dict:
            raise InputError(
                f"{bitfile!r} has no {name!r}; it has {', '.join(overlay.ip_dict) or 'nothing'}"
            )
        description = overlay.ip_dict[name]
        self._device = _open_memory()
        if self._device is not None:
            self.lock = CoreLock(self._device)
        self._io = pynq.MMIO(description["phys_addr"], 1 << csr.CSR_ADDRESS_BITS)
        self._buffer: Any = pynq.allocate(shape=(memory,), dtype=np.uint8, cacheable=False)
        super().__init__(
            self._io.array, np.asarray(self._buffer), int(self._buffer.device_address)
        )

    def read_memory(self, offset: int, size: int) -> UInt8:
        """See :class:`~vitrify.driver.Transport`."""
        self._buffer.invalidate()
        return super().read_memory(offset, size)

    def write_memory(self, offset: int, data: UInt8) -> None:
        """See :class:`~vitrify.driver.Transport`."""
        super().write_memory(offset, data)
        self._buffer.flush()

    def close(self) -> None:
        """Free the buffer."""
        self._memory = np.zeros(0, np.uint8)
        self._buffer.freebuffer()
        if self._device is not None:
            os.close(self._device)
            self._device = None


def _open_memory() -> int | None:
    """The file through which PYNQ reaches registers: all its processes can lock it."""
    try:
        return os.open("/dev/mem", os.O_RDONLY)
    except OSError:
        return None


def _find(ips: dict[str, Any], bitfile: str) -> str:
    """The core among the overlay's IP."""
    names = [name for name, ip in ips.items() if IP_TYPE in str(ip.get("type", ""))]
    if len(names) != 1:
        raise InputError(
            f"{bitfile!r} has {len(names)} cores of ours ({', '.join(names) or 'none'}); name one "
            f"with ip="
        )
    return names[0]
