"""Transport to the simulated core in this process: the driver's way without a board."""

from __future__ import annotations

import numpy as np

from vitrify.arch import csr
from vitrify.arch.config import ArchConfig
from vitrify.driver import LinkError, Transport

from .core import DramModel, SimulatedCore
from .library import Say, core_library

#: Bytes behind the simulated core.
MEMORY_BYTES = 64 << 20
#: Cycles of a look at the interrupt line.
_SLICE = 20_000
_NAMES = {register.offset: register.name for register in csr.REGISTERS}


class SimulatedTransport(Transport):
    """A :class:`~vitrify.cosim.core.SimulatedCore` with its DRAM.

    Parameters
    ----------
    arch : ArchConfig
    memory : int
        Bytes of DRAM.
    say : told what takes time
    """

    def __init__(
        self, arch: ArchConfig, *, memory: int = MEMORY_BYTES, say: Say = lambda _: None
    ) -> None:
        model = DramModel.of(arch)
        self.core = SimulatedCore(core_library(arch, say=say), arch, model)
        self.memory_size = memory
        self._memory = np.zeros(memory, np.uint8)
        self.core.attach(self._memory)

    def read_register(self, offset: int) -> int:
        """See :class:`~vitrify.driver.Transport`."""
        return self.core.read(_NAMES[offset])

    def write_register(self, offset: int, value: int) -> None:
        """See :class:`~vitrify.driver.Transport`."""
        self.core.write(_NAMES[offset], value)

    def read_memory(self, offset: int, size: int) -> np.ndarray:
        """See :class:`~vitrify.driver.Transport`."""
        return self._memory[offset : offset + size].copy()

    def write_memory(self, offset: int, data: np.ndarray) -> None:
        """See :class:`~vitrify.driver.Transport`."""
        self._memory[offset : offset + len(data)] = data

    def wait(self, seconds: float) -> None:  # noqa: ARG002  (time is simulated)
        """Clock until the interrupt, for a while."""
        self.core.run(_SLICE)
        if fault := self.core.fault():
            raise LinkError(f"the core {fault}")

    def close(self) -> None:
        """Destroy the simulation."""
        self.core.close()
