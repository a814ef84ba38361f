"""A core, its SDRAM and the serial link: boards with a Lattice ECP5 and no processing system.

:class:`System` is everything between the pads, and what simulations run; :class:`Top` adds pads,
PLL and reset.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.hdl import IOPort, Shape
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out, connect

from vitrify.arch.boards import Standalone
from vitrify.arch.config import ArchConfig
from vitrify.arch.sdram import SdramPart
from vitrify.rtl.bus.axi import connect_flat, flat_ports
from vitrify.rtl.core import Core

from .memory import SharedMemory, require_bus
from .pll import Pll
from .sdram import pins
from .serial_link import SerialLink

#: LEDs that the logic drives; a board has the first ``Standalone.leds`` of them.
_LEDS = 8
#: Of the controller's pins, those of the data lines.
_DATA_PINS = ("d_o", "d_oe", "d_i")
#: The heartbeat LED changes every so many cycles (a power of two).
_HEARTBEAT_BITS = 25


def divisor(clock_mhz: float, baud: int) -> int:
    """Cycles of a bit on the serial line."""
    return round(clock_mhz * 1e6 / baud)


class System(wiring.Component):
    """Core, memory controller and link; pins as plain ports.

    Parameters
    ----------
    arch : ArchConfig
        A bus as wide as the memory.
    sdram : SdramPart
    clock_mhz : float
    divisor : int
        Cycles of a bit on the serial line.

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
        self, arch: ArchConfig, sdram: SdramPart, *, clock_mhz: float, divisor: int
    ) -> None:
        require_bus(arch, sdram)
        self.arch = arch
        self.clock_mhz = clock_mhz
        self.divisor = divisor
        self.sdram = sdram
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(_LEDS),
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


def listens(around: Standalone) -> dict[str, int]:
    """Widths of the pins that the memory listens to and the board has wires to."""
    every = {
        pin: Shape.cast(member.shape).width for pin, member in pins(around.sdram).members.items()
        if pin not in _DATA_PINS
    }
    every["dqm"] = around.sdram.bytes
    return {pin: width for pin, width in every.items() if pin not in around.tied}


def ports(around: Standalone) -> dict[str, int]:
    """Widths of the ports of :class:`Top`: those that the board's constraints give sites."""
    return {
        "clk": 1, "rx": 1, "tx": 1, around.reset: 1, around.led: around.leds,
        **dict.fromkeys(around.high, 1), "sdram_clk": 1, "sdram_d": around.sdram.bits,
        **{f"sdram_{pin}": width for pin, width in listens(around).items()},
    }


class Top(Elaboratable):
    """Pads, PLL and reset around :class:`System`; ports are those of :func:`ports`.

    ``rx`` and ``tx`` are seen from here.  The memory's clock is the inverted clock, made in its
    pad; ``dqm`` is always low.

    Parameters
    ----------
    around : Standalone
        Of the board.
    arch : ArchConfig
    pll : of the board's oscillator
    """

    def __init__(self, around: Standalone, arch: ArchConfig, pll: Pll) -> None:
        self.around = around
        self.arch = arch
        self.pll = pll
        self.system = System(
            arch, around.sdram, clock_mhz=pll.mhz, divisor=divisor(pll.mhz, around.baud)
        )
        self.ports = {name: IOPort(width, name=name) for name, width in ports(around).items()}

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.board = system = self.system
        self._clock(m)
        self._output(m, self.around.led, system.leds)
        for name in self.around.high:
            self._output(m, name, Const(1, 1))
        self._output(m, "tx", system.tx)
        m.d.comb += system.rx.eq(self._input(m, "rx"))
        for pin in listens(self.around):
            low = pin == "dqm"
            self._output(m, f"sdram_{pin}", Const(0) if low else getattr(system, f"sdram_{pin}"))
        for i, port in enumerate(self.ports["sdram_d"]):
            m.submodules[f"d{i}"] = Instance(
                "BB", i_I=system.sdram_d_o[i], i_T=~system.sdram_d_oe, o_O=system.sdram_d_i[i],
                io_B=port,
            )
        clock = Signal()
        m.submodules.memory_clock = Instance(
            "ODDRX1F", i_SCLK=ClockSignal(), i_RST=Const(0, 1), i_D0=Const(0, 1),
            i_D1=Const(1, 1), o_Q=clock,
        )
        self._output(m, "sdram_clk", clock)
        return m

    def _clock(self, m: Module) -> None:
        m.domains.sync = ClockDomain("sync")
        pll, locked, source = self.pll, Signal(), self.around.oscillator_mhz
        m.submodules.pll = Instance(
            "EHXPLLL",
            p_CLKI_DIV=pll.input, p_CLKFB_DIV=pll.feedback, p_CLKOP_DIV=pll.output,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=pll.output - 1, p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            a_FREQUENCY_PIN_CLKI=f"{source:g}", a_FREQUENCY_PIN_CLKOP=f"{pll.mhz:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8",
            i_CLKI=self._input(m, "clk"), i_CLKFB=ClockSignal(), o_CLKOP=ClockSignal(),
            o_LOCK=locked, i_RST=Const(0, 1), i_STDBY=Const(0, 1),
        )
        m.submodules.reset = ResetSynchronizer(
            ~locked | self._input(m, self.around.reset)
        )

    def _input(self, m: Module, name: str) -> Any:
        m.submodules[f"pad_{name}"] = pad = io.Buffer("i", self._port(name, "i"))
        return pad.i

    def _output(self, m: Module, name: str, value: Any) -> None:
        m.submodules[f"pad_{name}"] = pad = io.Buffer("o", self._port(name, "o"))
        m.d.comb += pad.o.eq(value)

    def _port(self, name: str, direction: str) -> io.SingleEndedPort:
        """High when it is active, which the button and the LEDs may be when they are low."""
        low = name in (self.around.reset, self.around.led) and name.endswith("_n")
        return io.SingleEndedPort(self.ports[name], invert=low, direction=direction)
