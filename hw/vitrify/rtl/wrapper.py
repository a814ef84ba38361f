"""The outermost module: flat ports, as FPGA tools and simulators want them."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from vitrify.arch.config import ArchConfig
from vitrify.arch.names import port_names
from vitrify.rtl.bus.axi import axi4, axi4_lite, connect_flat, flat_ports
from vitrify.rtl.bus.stripe import Striper, port_arch
from vitrify.rtl.core import Core, trace_layout


class Wrapper(wiring.Component):
    """The core with ports ``clk``, ``rst``, ``m_axi_*``, ``s_axi_*`` and ``irq``.

    With several memory ports, these are ``m_axi0_*``, ``m_axi1_*`` ….

    One clock; ``rst`` is synchronous and active high.

    Parameters
    ----------
    arch : ArchConfig
    trace : bool
        Also bring out ``trace_*`` (:func:`~vitrify.rtl.core.trace_layout`), for simulators.
    """

    irq: Signal

    def __init__(self, arch: ArchConfig, *, trace: bool = False) -> None:
        self.arch = arch
        self.trace = trace
        shapes = trace_layout(arch) if trace else {}
        super().__init__({
            **{name: member for port in port_names(arch)
               for name, member in flat_ports(port, axi4(port_arch(arch))).items()},
            **flat_ports("s_axi", axi4_lite().flip()),
            "irq": Out(1),
            **{f"trace_{name}": Out(bits) for name, bits in shapes.items()},
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        m.submodules.core = core = Core(self.arch)
        if self.arch.ports == 1:
            connect_flat(m, self, "m_axi", core.m_axi)
        else:
            m.submodules.stripes = stripes = Striper(self.arch)
            connect(m, core.m_axi, stripes.bus)
            for port in port_names(self.arch):
                connect_flat(m, self, port, getattr(stripes, port))
        connect_flat(m, self, "s_axi", core.s_axi)
        m.d.comb += self.irq.eq(core.irq)
        if self.trace:
            # A register in between: simulators see settled values, the core is not loaded.
            m.d.sync += [
                getattr(self, f"trace_{name}").eq(getattr(core.trace, name))
                for name in trace_layout(self.arch)
            ]
        return m
