"""Netlists are checked and written as Amaranth does it, only sooner."""

import pytest
from amaranth import Array, Module, Signal, signed, unsigned
from amaranth.back import rtlil
from amaranth.hdl import _nir
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.rtl.lib.netlists import quick, waiting


class Mixed(wiring.Component):
    """Memories with contents of every kind, and a cell of each kind between them."""

    address: In(3)
    data: In(6)
    out: Out(6)

    def elaborate(self, _platform):
        m = Module()
        words = []
        for name, shape, init in (
            ("zeros", unsigned(6), []), ("some", unsigned(6), [1, 2, 63]),
            ("minus", signed(6), [-1, -32, 31, 5]), ("none", unsigned(0), []),
        ):
            m.submodules[name] = memory = Memory(shape=shape, depth=8, init=init)
            port = memory.read_port(domain="comb" if name == "some" else "sync")
            m.d.comb += port.addr.eq(self.address)
            words.append(port.data)
        write = memory.write_port()
        m.d.comb += [write.addr.eq(self.address), write.data.eq(self.data), write.en.eq(1)]
        picked = Array(words)[self.address[:2]]
        with m.Switch(self.data):
            with m.Case("1----0"):
                m.d.sync += self.out.eq(picked + self.data)
            with m.Default():
                m.d.sync += self.out.word_select(self.address[0], 3).eq(picked)
        return m


class Bits(wiring.Component):
    """A signal whose bits depend on each other: in turn, or, if it is ``closed``, in a circle."""

    first: In(1)
    out: Out(4)

    def __init__(self, *, closed):
        super().__init__()
        self.closed = closed

    def elaborate(self, _platform):
        m = Module()
        chain = Signal(4)
        m.d.comb += chain[0].eq(chain[3] ^ self.first if self.closed else self.first)
        m.d.comb += [chain[i].eq(~chain[i - 1]) for i in range(1, 4)]
        m.d.comb += self.out.eq(chain)
        return m


def text(component):
    return rtlil.convert(component, name="top", emit_src=False)


def test_the_text_is_the_same():
    with quick():
        found = text(Mixed())
    assert found == text(Mixed())
    assert found.count("meminit") == 4


def test_bits_of_a_signal_may_depend_on_each_other():
    with quick():
        assert "connect" in text(Bits(closed=False))


def test_a_circle_is_found_with_its_path():
    with pytest.raises(_nir.CombinationalCycle) as slow:
        text(Bits(closed=True))
    with quick(), pytest.raises(_nir.CombinationalCycle, match="signal chain bit") as fast:
        text(Bits(closed=True))
    assert str(fast.value) == str(slow.value)


def test_amaranth_is_as_it_was_afterwards():
    before = _nir.Netlist.check_comb_cycles, rtlil.ModuleEmitter.emit_memory
    with pytest.raises(_nir.CombinationalCycle), quick(), quick():
        text(Bits(closed=True))
    assert (_nir.Netlist.check_comb_cycles, rtlil.ModuleEmitter.emit_memory) == before


def test_what_waits_is_a_circle_and_what_is_behind_it():
    assert waiting({1: set(), 2: {1, 4}, 3: {2}, 4: {3}, 5: {4}, 6: {1}}) == {2, 3, 4, 5}
