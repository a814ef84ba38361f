"""Boards: clock, part, memory ports and the memory behind, where the core's registers lie.

Presets, the estimator, build scripts, constraints, device trees, drivers and the tables of the
documents take their figures from here.  No clock of a Zynq board has met place and route yet: it is
what the build configures, chosen with caution.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .config import ArchConfig, Part
from .csr import CSR_ADDRESS_BITS
from .dram import Dram
from .errors import ConfigError
from .link import BAUD
from .sdram import SdramPart

ECP5_45 = Part(name="LFE5U-45F", family="ecp5", luts=43_848, ffs=43_848, dsps=72, brams=108)
ECP5_85 = Part(name="LFE5U-85F", family="ecp5", luts=83_640, ffs=83_640, dsps=156, brams=208)
XC7Z020 = Part(name="xc7z020clg400-1", family="xc7", luts=53_200, ffs=106_400, dsps=220,
               brams=140)
XCK26 = Part(name="xck26-sfvc784-2LV-c", family="xcup", luts=117_120, ffs=234_240, dsps=1_248,
             brams=144, urams=64)
XCZU9EG = Part(name="xczu9eg-ffvb1156-2-e", family="xcup", luts=274_080, ffs=548_160,
               dsps=2_520, brams=912)


@dataclass(frozen=True, kw_only=True)
class MemoryPorts:
    """Equal AXI ports from the logic to the memory."""

    #: AXI3 (bursts of 16 beats) or AXI4.
    protocol: str
    #: Bytes of a beat.
    bytes: int
    #: The vendor's numbers, in the order in which a core with fewer ports takes them.
    order: tuple[int, ...]

    @property
    def most(self) -> int:
        """Ports in all."""
        return len(self.order)

    @property
    def burst_beats(self) -> int:
        """Longest burst."""
        return 16 if self.protocol == "AXI3" else 256

    def taken(self, count: int) -> tuple[int, ...]:
        """Numbers of the ports of a core with ``count``."""
        return tuple(sorted(self.order[:count]))


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The DRAM of a board."""

    #: Standard, data rate, width.
    name: str
    #: Bytes a second that its data pins could move.
    peak: float
    #: Share of the peak that was measured from the logic's side, sequential reads, and by whom.
    efficiency: float
    source: str
    #: Times of the standard; the bandwidth is such that sequential reads reach the efficiency.
    times: Dram

    @property
    def dram(self) -> Dram:
        """What simulator and estimator put behind the bus."""
        return dataclasses.replace(self.times, bandwidth=self.peak).sustaining(
            self.peak * self.efficiency
        )


@dataclass(frozen=True, kw_only=True)
class Zynq:
    """A processing system beside the core."""

    #: ``zynq7`` (Zynq-7000) or ``zynqmp`` (Zynq UltraScale+).
    family: str
    #: Of the vendor's board files, where they are installed.
    board_part: str
    #: Physical address of the core's registers.
    registers: int
    #: Physical addresses that the memory ports reach.
    memory_bytes: int = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Standalone:
    """No processing system: a memory controller and a serial line beside the core.

    The ports are named in ``constraints/BOARD/BOARD.lpf``; those that end in ``_n`` are low when
    they are active.
    """

    #: Of the part, as nextpnr calls it.
    package: str
    sdram: SdramPart
    #: Pins of the SDRAM that the board ties: the logic has no wires to them.
    tied: tuple[str, ...] = ()
    oscillator_mhz: float = 25.0
    #: Bits a second of the serial line.
    baud: int = BAUD
    #: Ports of the button that resets, and of the LEDs.
    reset: str = "reset"
    led: str = "led"
    leds: int
    #: Ports that have to be high.
    high: tuple[str, ...] = ()
    #: What loads a bitstream, whose name follows.
    load: str
    #: Seed of place and route, and further options of nextpnr, with which the preset's core meets
    #: the board's clock.
    seed: int = 1
    nextpnr: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board, as ``vitrify build`` makes its core."""

    name: str
    part: Part
    #: Clock of the core in MHz that the build configures, and what stands behind it.
    clock_mhz: float
    clock_from: str
    ports: MemoryPorts
    memory: Memory
    #: One of the two.
    zynq: Zynq | None = None
    standalone: Standalone | None = None

    @property
    def register_bytes(self) -> int:
        """Bytes of the register window."""
        return 1 << CSR_ADDRESS_BITS

    def settings(self, ports: int = 1) -> dict[str, Any]:
        """Settings of an :class:`ArchConfig` that the board decides, for a core with ``ports``."""
        return {
            "part": self.part, "clock_mhz": self.clock_mhz, "dram": self.memory.dram,
            "bus_bytes": ports * self.ports.bytes, "ports": ports,
        }

    def place(self, arch: ArchConfig) -> ArchConfig:
        """``arch`` on this board: its part, clock and memory, and as many ports as the bus needs.

        Raises
        ------
        ConfigError
            If its bus is too wide, or its bursts too long.
        """
        ports = arch.ports
        while arch.bus_bytes // ports > self.ports.bytes:
            ports *= 2
        settings = self.settings() | {"bus_bytes": arch.bus_bytes, "ports": min(ports, 8)}
        placed = dataclasses.replace(arch, **settings)
        self.require(placed)
        return placed

    def require(self, arch: ArchConfig) -> None:
        """Check that ``arch`` can be connected.

        Raises
        ------
        ConfigError
            If its part, or a port's width or bursts, are not those of the board.
        """
        ports = self.ports
        if arch.part.family != self.part.family:
            raise ConfigError(
                f"arch {arch.name!r} is for the part {arch.part.name}, which {self.name} has not"
            )
        if arch.ports > ports.most:
            raise ConfigError(
                f"arch {arch.name!r} has {arch.ports} memory ports, and {self.name} offers "
                f"{ports.most}; set ports"
            )
        if arch.port_bytes > ports.bytes:
            raise ConfigError(
                f"arch {arch.name!r}: a memory port of {self.name} carries {ports.bytes} bytes a "
                f"cycle, not {arch.port_bytes}; set ports (at most {ports.most}) or bus_bytes"
            )
        if arch.port_beats > ports.burst_beats:
            raise ConfigError(
                f"arch {arch.name!r}: the memory ports of {self.name} take bursts of "
                f"{ports.burst_beats} beats, not {arch.port_beats}; set burst_beats"
            )


#: A debugger that is a serial port as well: what the boards' own examples use.
_DAPLINK_BAUD = 115_200
_CAUTION = "configured; never placed, never on a board"
_PLACED = "met by nextpnr with the preset's core; never on a board"
#: Manev et al. measured that ports 1 and 2 get in each other's way, hence 2 comes last.
_HP = MemoryPorts(protocol="AXI4", bytes=16, order=(0, 3, 1, 2))
_HP_SOURCE = (
    "Manev, Vaishnav, Koch: Unexpected Diversity: Quantitative Memory Analysis for Zynq "
    "UltraScale+ Systems, FPT 2019, doi 10.1109/ICFPT47387.2019.00029 (ZCU102: 75 % of the peak)"
)
#: JESD79-4: tREFI 7.8 us; tRFC 350 ns (8 Gbit), tRP and tRCD 15 clocks each; rows of 64 bits.
_DDR4 = Dram(refresh_interval_ns=7800, refresh_ns=350, turnaround_ns=15, row_miss_ns=28,
             row_bytes=8192, banks=16)


def _with_sdram(
    name: str, part: Part, clock_mhz: float, clock_from: str, around: Standalone
) -> Board:
    """A board whose memory is an SDRAM at the core's clock."""
    chip = around.sdram
    return Board(
        name=name, part=part, clock_mhz=clock_mhz, clock_from=clock_from,
        ports=MemoryPorts(protocol="AXI4", bytes=chip.bytes, order=(0,)),
        memory=Memory(
            name=f"SDR SDRAM, {chip.bits} bit, at the core's clock",
            peak=clock_mhz * 1e6 * chip.bytes, efficiency=0.95,
            source="its own controller (vitrify.boards.sdram), in simulation",
            # One burst at a time: what each waits for is in the efficiency.  It closes its row, so
            # that a read waits for the last write's recovery.
            times=Dram(latency=0, outstanding=1, refresh_interval_ns=chip.refresh,
                       refresh_ns=chip.trfc, turnaround_ns=chip.twr + chip.trp,
                       row_miss_ns=chip.trp + chip.trcd,
                       row_bytes=chip.row_bytes, banks=1 << chip.bank_bits),
        ),
        standalone=around,
    )


_BOARDS = (
    _with_sdram(
        "ulx3s", ECP5_85, 70.0, _PLACED,
        Standalone(
            # IS42S16160G, AS4C16M16SA and their like; -7 grades or faster.
            package="CABGA381", sdram=SdramPart(name="16M x 16"), leds=8,
            # Low, it would put the WiFi module in charge of the board.
            high=("wifi_gpio0",), load="openFPGALoader --board ulx3s",
            nextpnr=("--tmg-ripup",),
        ),
    ),
    _with_sdram(
        "colorlight-i9", ECP5_45, 75.0, _PLACED,
        Standalone(
            package="CABGA381",
            # M12L64322A or EM638325.  Not compared with their data sheets: no time is shorter than
            # in LiteDRAM's M12L64322A (tRCD, tRP, tWR 15 ns; tRAS 40; tRFC 55; 4,096 REFRESH).
            sdram=SdramPart(name="2M x 32", bits=32, row_bits=11, column_bits=8, trfc=70.0,
                            twr=30.0, refresh=15_625.0),
            tied=("cke", "cs_n", "dqm"), baud=_DAPLINK_BAUD,
            reset="reset_n", led="led_n", leds=1, load="openFPGALoader --board colorlight-i9",
        ),
    ),
    _with_sdram(
        "schoko", ECP5_45, 72.0, _PLACED,
        Standalone(
            # W9825G6KH.  Not compared with its data sheet: no time is shorter than in LiteDRAM
            # (tRCD, tRP, tWR 15 ns; tRAS 42; tRFC 60; 8,192 REFRESH).
            package="CABGA256", sdram=SdramPart(name="16M x 16", twr=30.0), oscillator_mhz=48.0,
            reset="reset_n", led="led_n", leds=3, load="openFPGALoader --cable usb-blaster",
        ),
    ),
    Board(
        name="pynq-z2", part=XC7Z020, clock_mhz=100.0, clock_from=_CAUTION,
        ports=MemoryPorts(protocol="AXI3", bytes=8, order=(0, 2, 1, 3)),
        memory=Memory(
            name="DDR3-1050, 16 bit", peak=2.1e9, efficiency=0.75,
            source="AMD UG585, Zynq-7000 TRM, 22.3.2: at most about 75 %",
            times=Dram(refresh_interval_ns=7800, refresh_ns=260, turnaround_ns=15,
                       row_miss_ns=27, row_bytes=2048, banks=8),
        ),
        zynq=Zynq(family="zynq7", board_part="tul.com.tw:pynq-z2:part0:1.0",
                  registers=0x4000_0000, memory_bytes=512 << 20),
    ),
    Board(
        name="kv260", part=XCK26, clock_mhz=200.0, clock_from=_CAUTION, ports=_HP,
        memory=Memory(
            name="DDR4-2400, 64 bit", peak=19.2e9, efficiency=0.75, times=_DDR4,
            source=_HP_SOURCE,
        ),
        zynq=Zynq(family="zynqmp", board_part="xilinx.com:kv260_som:part0:1.4",
                  registers=0xA000_0000),
    ),
    Board(
        # The vendor's board files set the memory to 2133, below what the module could do.
        name="zcu102", part=XCZU9EG, clock_mhz=200.0, clock_from=_CAUTION, ports=_HP,
        memory=Memory(
            name="DDR4-2133, 64 bit", peak=17.066e9, efficiency=0.75, times=_DDR4,
            source=_HP_SOURCE,
        ),
        zynq=Zynq(family="zynqmp", board_part="xilinx.com:zcu102:part0:3.4",
                  registers=0xA000_0000),
    ),
)

BOARDS: dict[str, Board] = {board.name: board for board in _BOARDS}
ZYNQ_BOARDS: tuple[str, ...] = tuple(name for name, board in BOARDS.items() if board.zynq)
STANDALONE_BOARDS: tuple[str, ...] = tuple(
    name for name, board in BOARDS.items() if board.standalone
)


def standalone(of: Board) -> Standalone:
    """What stands around the core of a board without a processing system.

    Raises
    ------
    ConfigError
        If it has one; the message lists the boards.
    """
    if of.standalone is None:
        raise ConfigError(
            f"{of.name} has a processing system; the boards without are "
            f"{', '.join(STANDALONE_BOARDS)}"
        )
    return of.standalone


def built_for(arch: ArchConfig) -> Board | None:
    """The board whose clock, part and memory ``arch`` has."""
    for found in BOARDS.values():
        if (arch.clock_mhz, arch.part, arch.dram) == (
            found.clock_mhz, found.part, found.memory.dram
        ):
            return found
    return None


def board(name: str) -> Board:
    """The board called ``name``.

    Raises
    ------
    ConfigError
        If there is none; the message lists the names.
    """
    try:
        return BOARDS[name]
    except KeyError:
        raise ConfigError(
            f"no board is called {name!r}; the boards are {', '.join(BOARDS)}"
        ) from None
