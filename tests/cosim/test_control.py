"""Registers, dispatcher and AXI master together, with the engines played by the bench."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from amaranth import Module, ResetInserter, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl.bus.axi import axi4, axi4_lite, connect_flat, flat_ports
from vitrify.rtl.bus.master import AxiMaster
from vitrify.rtl.control.controller import BUS_ERRORS, ENGINE_EVENTS, Controller
from vitrify.rtl.control.decode import payloads
from vitrify.rtl.control.dispatcher import ENGINES, FINISHED
from vitrify.rtl.control.instruction_fetch import InstructionFetch
from vitrify.rtl.interfaces import EXPERT_BITS, QUEUE, memory_read, memory_write

BENCHES = Path(__file__).parent / "benches"
NANO = preset("nano")
LIMIT_CYCLES = 64
_COMMANDS = {name: layout for name, layout in payloads(NANO).items() if name != "weights"}


class EnginelessCore(wiring.Component):
    """A core whose engines are outside."""

    def __init__(self, arch):
        self.arch = arch
        super().__init__({
            **flat_ports("m_axi", axi4(arch)),
            **flat_ports("s_axi", axi4_lite().flip()),
            "irq": Out(1), "core_reset": Out(1),
            **{name: Out(stream.Signature(layout)) for name, layout in _COMMANDS.items()},
            "weights": Out(stream.Signature(unsigned(8 * arch.depth))),
            "load": In(memory_read(arch)), "store": In(memory_write(arch)),
            "expert": Out(EXPERT_BITS), "queue": In(QUEUE),
            "idle": In(ENGINES), "finished": In(FINISHED), "events": In(ENGINE_EVENTS),
        })

    def elaborate(self, _platform):
        m = Module()
        m.submodules.controller = controller = Controller(
            self.arch, units=1, limit_cycles=LIMIT_CYCLES, drain_cycles=300
        )
        master = AxiMaster(self.arch)
        m.submodules.master = ResetInserter(controller.core_reset)(master)
        connect_flat(m, self, "m_axi", master.m_axi)
        connect_flat(m, self, "s_axi", controller.s_axi)
        for name in _COMMANDS:
            connect(m, getattr(controller, name), flipped(getattr(self, name)))
        connect(m, controller.instructions, master.instructions)
        connect(m, controller.weights, master.weights.request)
        connect(m, master.weights.data, flipped(self.weights))
        connect(m, flipped(self.load), master.loads)
        connect(m, flipped(self.store), master.stores)
        for name in BUS_ERRORS:
            connect(m, getattr(master, name), getattr(controller, name))
        m.d.comb += [
            master.read_window.eq(controller.read_window),
            master.write_window.eq(controller.write_window),
            self.expert.eq(controller.expert), controller.queue.eq(self.queue),
            self.irq.eq(controller.irq), self.core_reset.eq(controller.core_reset),
            controller.idle.eq(self.idle), controller.finished.eq(self.finished),
            controller.events.eq(self.events),
            controller.events.dram_read_beats.eq(master.read_beat),
            controller.events.dram_write_beats.eq(master.write_beat),
            controller.bus_idle.eq(master.idle), master.stop.eq(controller.bus_stop),
        ]
        return m


@pytest.mark.parametrize("bench", ["control_bench", "control_faults_bench"])
def test_control(bench):
    simulate(EnginelessCore(NANO), "control", BENCHES / f"{bench}.py", arch=NANO,
             options={"limit_cycles": LIMIT_CYCLES})


@pytest.mark.parametrize("depth", [8, 64, 128])
def test_instruction_fetch(depth):
    arch = dataclasses.replace(NANO, name=f"k{depth}", depth=depth)
    simulate(InstructionFetch(arch), f"ifetch-{depth}", BENCHES / "instruction_fetch_bench.py",
             arch=arch)
