"""ULX3S: a core, its SDRAM and the serial link on a Lattice ECP5-85F.

:class:`Board` is everything between the pads, and what simulations run; :class:`Top` adds pads,
PLL and reset.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.hdl import IOPort
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out, connect

from vitrify.arch.config import ArchConfig
from vitrify.arch.link import BAUD
from vitrify.rtl.bus.axi import connect_flat, flat_ports
from vitrify.rtl.core import Core

from .memory import SharedMemory, require_bus
from .pll import Pll
from .sdram import SdramPart, pins
from .serial_link import SerialLink

#: IS42S16160G, AS4C16M16SA and their like; -7 grades or faster.
SDRAM = SdramPart(name="16M x 16")
OSCILLATOR_MHZ = 25.0
LEDS = 8
#: The heartbeat LED changes every so many cycles (a power of two).
_HEARTBEAT_BITS = 25


def divisor(clock_mhz: float, baud: int = BAUD) -> int:
    """Cycles of a bit on the serial line."""
    return round(clock_mhz * 1e6 / baud)


class Board(wiring.Component):
    """Core, memory controller and link; pins as plain ports.

    Parameters
    ----------
    arch : ArchConfig
        ``bus_bytes`` 2.
    clock_mhz : float
    divisor : int
        Cycles of a bit on the serial line.
    sdram : SdramPart

    Members
    -------
    rx : In(1), tx : Out(1)
        Serial line, seen from the board.
    leds : Out(8)
        0 heartbeat; 1 a request of the host; 2 the core reads memory; 3 it writes; 4 its
        interrupt (a job is done or it stopped); 5-7 off.
    sdram_* : Out(pins(sdram))
    """

    rx: Signal
    tx: Signal
    leds: Signal

    def __init__(
        self, arch: ArchConfig, *, clock_mhz: float, divisor: int, sdram: SdramPart = SDRAM
    ) -> None:
        require_bus(arch)
        self.arch = arch
        self.clock_mhz = clock_mhz
        self.divisor = divisor
        self.sdram = sdram
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(LEDS),
            **flat_ports("sdram", pins(sdram)),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.core = core = Core(self.arch)
        m.submodules.memory = memory = SharedMemory(
            self.arch, self.sdram, clock_mhz=self.clock_mhz
        )
        m.submodules.link = link = SerialLink(
            divisor=self.divisor, memory_bytes=self.sdram.size,
            clock_hz=round(self.clock_mhz * 1e6),
        )
        connect(m, core.m_axi, memory.axi)
        connect(m, link.registers, core.s_axi)
        connect(m, link.memory, memory.word)
        connect_flat(m, self, "sdram", memory.pins)
        beat = Signal(_HEARTBEAT_BITS)
        m.d.sync += [
            beat.eq(beat + 1),
            self.leds.eq(Cat(
                beat[-1], link.active, core.m_axi.rvalid, core.m_axi.wvalid, core.irq,
            )),
        ]
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx)]
        return m


class Top(Elaboratable):
    """Pads, PLL and reset around :class:`Board`, with the names of ``constraints/ulx3s``.

    The memory's clock is the inverted clock, made in its pad.  Button FIRE1 resets.

    Parameters
    ----------
    arch : ArchConfig
    pll : of :data:`OSCILLATOR_MHZ`
    """

    def __init__(self, arch: ArchConfig, pll: Pll) -> None:
        self.arch = arch
        self.pll = pll
        self.board = Board(
            arch, clock_mhz=self.pll.mhz, divisor=divisor(self.pll.mhz)
        )
        part = self.board.sdram
        widths = {
            "clk_25mhz": 1, "ftdi_txd": 1, "btn": 7,
            "ftdi_rxd": 1, "led": LEDS, "wifi_gpio0": 1,
            "sdram_clk": 1, "sdram_cke": 1, "sdram_csn": 1, "sdram_rasn": 1, "sdram_casn": 1,
            "sdram_wen": 1, "sdram_ba": part.bank_bits, "sdram_a": part.row_bits,
            "sdram_dqm": 2, "sdram_d": 16,
        }
        self.ports = {name: IOPort(width, name=name) for name, width in widths.items()}

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.board = board = self.board
        oscillator = self._input(m, "clk_25mhz")
        self._clock(m, oscillator)
        self._output(m, "led", board.leds)
        # Low, it would put the WiFi module in charge of the board.
        self._output(m, "wifi_gpio0", Const(1, 1))
        self._output(m, "ftdi_rxd", board.tx)
        m.d.comb += board.rx.eq(self._input(m, "ftdi_txd"))
        for port, member in (
            ("cke", "cke"), ("csn", "cs_n"), ("rasn", "ras_n"), ("casn", "cas_n"), ("wen", "we_n"),
            ("ba", "ba"), ("a", "a"), ("dqm", "dqm"),
        ):
            self._output(m, f"sdram_{port}", getattr(board, f"sdram_{member}"))
        for i in range(16):
            m.submodules[f"d{i}"] = Instance(
                "BB", i_I=board.sdram_d_o[i], i_T=~board.sdram_d_oe, o_O=board.sdram_d_i[i],
                io_B=self.ports["sdram_d"][i],
            )
        clock = Signal()
        m.submodules.memory_clock = Instance(
            "ODDRX1F", i_SCLK=ClockSignal(), i_RST=Const(0, 1), i_D0=Const(0, 1),
            i_D1=Const(1, 1), o_Q=clock,
        )
        self._output(m, "sdram_clk", clock)
        return m

    def _clock(self, m: Module, oscillator: Signal) -> None:
        m.domains.sync = ClockDomain("sync")
        pll, locked = self.pll, Signal()
        buttons = self._input(m, "btn")
        m.submodules.pll = Instance(
            "EHXPLLL",
            p_CLKI_DIV=pll.input, p_CLKFB_DIV=pll.feedback, p_CLKOP_DIV=pll.output,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=pll.output - 1, p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            a_FREQUENCY_PIN_CLKI=f"{OSCILLATOR_MHZ:g}", a_FREQUENCY_PIN_CLKOP=f"{pll.mhz:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8",
            i_CLKI=oscillator, i_CLKFB=ClockSignal(), o_CLKOP=ClockSignal(), o_LOCK=locked,
            i_RST=Const(0, 1), i_STDBY=Const(0, 1),
        )
        m.submodules.reset = ResetSynchronizer(~locked | buttons[1])

    def _input(self, m: Module, name: str) -> Signal:
        port = self.ports[name]
        m.submodules[f"pad_{name}"] = pad = io.Buffer("i", io.SingleEndedPort(port, direction="i"))
        return pad.i

    def _output(self, m: Module, name: str, value: Any) -> None:
        port = self.ports[name]
        m.submodules[f"pad_{name}"] = pad = io.Buffer("o", io.SingleEndedPort(port, direction="o"))
        m.d.comb += pad.o.eq(value)
