"""The bench helpers themselves, on a stream register and a pipe register."""

from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tests.support.simulators import SIMULATORS
from vitrify.arch.presets import preset
from vitrify.cosim.runner import simulate
from vitrify.rtl import interfaces

BENCHES = Path(__file__).parent / "benches"


class Register(wiring.Component):
    """A pipe register and a stream register; ``broken`` drops the pipe's data once it is 5."""

    def __init__(self, layout: data.Layout, *, broken: bool = False):
        self.broken = broken
        super().__init__({
            "i": In(interfaces.pipe(layout)), "o": Out(interfaces.pipe(layout)),
            "s": In(stream.Signature(8)), "t": Out(stream.Signature(8)),
        })

    def elaborate(self, _platform):
        m = Module()
        m.d.sync += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p)]
        if self.broken:
            with m.If(self.i.p.mode == 2):
                m.d.sync += self.o.valid.eq(0)
        m.d.comb += self.s.ready.eq(~self.t.valid | self.t.ready)
        with m.If(self.s.ready):
            m.d.sync += [self.t.valid.eq(self.s.valid), self.t.payload.eq(self.s.payload)]
        return m


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_register(simulator):
    arch = preset("nano")
    simulate(Register(interfaces.transform_input(arch)), "register", BENCHES / "register_bench.py",
             arch=arch, simulator=simulator)


def test_a_wrong_design_fails():
    arch = preset("nano")
    design = Register(interfaces.transform_input(arch), broken=True)
    with pytest.raises(AssertionError, match="1 of 3 cocotb tests failed"):
        simulate(design, "broken", BENCHES / "register_bench.py", arch=arch)
