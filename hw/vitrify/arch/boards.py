"""Boards with a Zynq: where the core's registers lie, its port to memory, the vendor's names."""

from __future__ import annotations

from dataclasses import dataclass

from .csr import CSR_ADDRESS_BITS
from .errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ZynqBoard:
    """A processing system with a core beside it."""

    name: str
    #: Of the vendor's board files, where they are installed.
    board_part: str
    #: ``zynq7`` (Zynq-7000) or ``zynqmp`` (Zynq UltraScale+).
    family: str
    #: Physical address of the core's registers.
    registers: int
    #: Clock of the core in MHz, made by the processing system.
    clock_mhz: float
    #: Physical addresses that the core's memory port reaches.
    memory_bytes: int = 1 << 31

    @property
    def register_bytes(self) -> int:
        """Bytes of the register window."""
        return 1 << CSR_ADDRESS_BITS


_BOARDS = (
    ZynqBoard(
        name="pynq-z2", board_part="tul.com.tw:pynq-z2:part0:1.0", family="zynq7",
        registers=0x4000_0000, clock_mhz=100.0, memory_bytes=512 << 20,
    ),
    ZynqBoard(
        name="kv260", board_part="xilinx.com:kv260_som:part0:1.4", family="zynqmp",
        registers=0xA000_0000, clock_mhz=200.0,
    ),
    ZynqBoard(
        name="zcu102", board_part="xilinx.com:zcu102:part0:3.4", family="zynqmp",
        registers=0xA000_0000, clock_mhz=200.0,
    ),
)

ZYNQ_BOARDS: dict[str, ZynqBoard] = {board.name: board for board in _BOARDS}


def zynq_board(name: str) -> ZynqBoard:
    """The board called ``name``.

    Raises
    ------
    ConfigError
        If there is none; the message lists the names.
    """
    try:
        return ZYNQ_BOARDS[name]
    except KeyError:
        raise ConfigError(
            f"no Zynq board is called {name!r}; the boards are {', '.join(ZYNQ_BOARDS)}"
        ) from None
