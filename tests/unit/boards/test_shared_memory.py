"""SDRAM controllers of both widths, between the link and something that moves bursts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.boards import board, standalone
from vitrify.arch.presets import preset
from vitrify.boards import standalone as module
from vitrify.cosim.board import SimulatedBoard
from vitrify.cosim.pty import serve
from vitrify.driver.serial_port import SerialTransport, open_port
from vitrify.rtl.bus.axi import axi4, axi4_lite, drive_address

pytestmark = pytest.mark.slow
SOURCE, TARGET, BEATS = 0, 4, 8


class Copier(wiring.Component):
    """In the place of a core: a write to the register BEATS copies a burst of so many beats."""

    def __init__(self, arch):
        self.arch = arch
        super().__init__({"m_axi": Out(axi4(arch)), "s_axi": In(axi4_lite()), "irq": Out(1)})

    def elaborate(self, _platform: Any) -> Module:
        m, axi, host = Module(), self.m_axi, self.s_axi
        width = 8 * self.arch.bus_bytes
        m.submodules.words = words = memory.Memory(shape=width, depth=256, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        source, target, beats, at = Signal(40), Signal(40), Signal(9), Signal(9)
        for channel in ("ar", "aw"):
            drive_address(m, axi, channel, self.arch)
        m.d.comb += [
            axi.araddr.eq(source), axi.arlen.eq(beats - 1), axi.rready.eq(1),
            axi.awaddr.eq(target), axi.awlen.eq(beats - 1), axi.bready.eq(1), axi.wstrb.eq(~0),
            write.addr.eq(at), write.data.eq(axi.rdata), write.en.eq(axi.rvalid),
            read.addr.eq(at), axi.wdata.eq(read.data), axi.wlast.eq(at == beats - 1),
            host.rdata.eq(beats), host.arready.eq(1),
        ]
        m.d.sync += host.rvalid.eq(host.arvalid)
        with m.FSM():
            with m.State("WAIT"), m.If(host.awvalid & host.wvalid):
                m.d.comb += [host.awready.eq(1), host.wready.eq(1)]
                m.d.sync += host.bvalid.eq(1)
                m.next = "ANSWERED"
                with m.Switch(host.awaddr):
                    with m.Case(SOURCE):
                        m.d.sync += source.eq(host.wdata)
                    with m.Case(TARGET):
                        m.d.sync += target.eq(host.wdata)
                    with m.Case(BEATS):
                        m.d.sync += [beats.eq(host.wdata), at.eq(0)]
                        m.next = "ASK"
            with m.State("ANSWERED"):
                m.d.sync += host.bvalid.eq(0)
                m.next = "WAIT"
            with m.State("ASK"):
                m.d.sync += host.bvalid.eq(0)
                m.d.comb += axi.arvalid.eq(1)
                with m.If(axi.arready):
                    m.next = "READ"
            with m.State("READ"), m.If(axi.rvalid):
                m.d.sync += at.eq(at + 1)
                with m.If(axi.rlast):
                    m.d.sync += at.eq(0)
                    m.next = "ANNOUNCE"
            with m.State("ANNOUNCE"):
                m.d.comb += axi.awvalid.eq(1)
                with m.If(axi.awready):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += axi.wvalid.eq(at != beats)
                with m.If(axi.wready):
                    m.d.sync += at.eq(at + 1)
                with m.If(axi.bvalid):
                    m.d.sync += beats.eq(0)
                    m.next = "WAIT"
        return m


@pytest.mark.parametrize("name", ["ulx3s", "colorlight-i9"])
def test_bursts_and_half_words(name, monkeypatch):
    """Nothing but what was meant changes, and the chip's times are kept."""
    monkeypatch.setattr(module, "Core", Copier)
    chip, arch = standalone(board(name)).sdram, preset(name)
    simulated = SimulatedBoard(dataclasses.replace(arch, name=f"copier-{name}"), chip)
    rng = np.random.default_rng(5)
    expected = rng.integers(0, 256, 1 << 14).astype(np.uint8)
    # The end of the memory, where every line of an address is high somewhere.
    base = chip.size - len(expected)
    with serve(simulated) as port:
        transport = SerialTransport(open_port(port))
        transport.write_memory(base, expected)
        for _ in range(6):
            beats = int(rng.integers(1, 257))
            source, target = (
                int(at) * chip.row_bytes for at in rng.choice(8, 2, replace=False)
            )
            for register, value in (
                (SOURCE, base + source), (TARGET, base + target), (BEATS, beats),
            ):
                transport.write_register(register, value)
            # While it copies, the host writes into other words.
            other, size = 1 << 13 | 2 * int(rng.integers(1 << 11)), 2 * int(rng.integers(1, 40))
            changed = rng.integers(0, 256, size).astype(np.uint8)
            transport.write_memory(base + other, changed)
            while transport.read_register(BEATS):
                pass
            size = beats * chip.bytes
            expected[target : target + size] = expected[source : source + size]
            expected[other : other + len(changed)] = changed
        assert (transport.read_memory(base, len(expected)) == expected).all()
        transport.close()
    assert simulated.fault() == ""
    simulated.close()
