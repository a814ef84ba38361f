"""What emitted Verilog says about its memories."""

from __future__ import annotations

import re

import pytest
from amaranth import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitrify.arch.presets import preset
from vitrify.rtl.lib.shared import to_verilog
from vitrify.rtl.units.tile_writer import TileWriter


class Memories(wiring.Component):
    """A queue's memory, one with a style of its own, a deep one, and a table."""

    def __init__(self):
        super().__init__({"i": In(8), "en": In(1), "o": Out(32)})

    def elaborate(self, _platform):
        m = Module()
        sizes = {"short": (64, [], {}), "long": (256, [], {"ram_style": "ultra"}),
                 "deep": (4096, [], {}), "table": (256, [3, 0, 5], {})}
        for i, (name, (depth, init, attrs)) in enumerate(sizes.items()):
            m.submodules[name] = memory = Memory(
                shape=unsigned(8), depth=depth, init=init, attrs=attrs
            )
            read = memory.read_port()
            m.d.comb += [read.addr.eq(self.i), self.o.word_select(i, 8).eq(read.data)]
            if name != "table":
                write = memory.write_port()
                m.d.comb += [write.addr.eq(self.i), write.data.eq(self.i), write.en.eq(self.en)]
        return m


@pytest.mark.parametrize(("family", "short", "long", "deep"), [
    ("none", {"no_rw_check": "1"}, {"no_rw_check": "1", "ram_style": '"ultra"'},
     {"no_rw_check": "1"}),
    ("ecp5",
     {"no_rw_check": "1", "ram_style": '"distributed"', "syn_ramstyle": '"distributed"'},
     {"no_rw_check": "1", "ram_style": '"ultra"'}, {"no_rw_check": "1"}),
    # UltraRAM is for those that ask for it.
    ("xcup", {"no_rw_check": "1", "rw_addr_collision": '"no"'},
     {"no_rw_check": "1", "rw_addr_collision": '"no"', "ram_style": '"ultra"'},
     {"no_rw_check": "1", "rw_addr_collision": '"no"', "ram_style": '"block"'}),
])
def test_attributes(family, short, long, deep):
    text = to_verilog(Memories(), "memories", family)
    found = {}
    for attributes, last in re.findall(
        r"((?:  \(\* .+ \*\)\n)*)  reg \[7:0\] .+ \[(\d+):0\];", text
    ):
        pairs = re.findall(r'(\w+) = (\d+|"[^"]*")', attributes)
        found.setdefault(int(last), []).append(dict(pairs))
    assert found[63] == [short]
    assert found[4095] == [deep]
    # The table is nobody's to write.
    assert sorted(found[255], key=len) == [{}, long]
    blocks = re.findall(r"initial begin\n(.*?)  end\n", text, re.S)
    assert [block.count("\n") for block in blocks] == [256]


@pytest.mark.parametrize(("name", "blocks"), [("kv260", True), ("kv260-w4", False)])
def test_tiles_wait_in_blocks_where_there_are_some(name, blocks):
    """64 words of 512 bits; sums in thirds need the block RAMs of their core."""
    arch = preset(name)
    assert arch.tiles_in_blocks == blocks
    text = to_verilog(TileWriter(arch, swap_latency=19), "writer", arch.part.family)
    (attributes,) = re.findall(r"((?:  \(\* .+ \*\)\n)*)  reg \[511:0\] .+ \[63:0\];", text)
    assert ('ram_style = "block"' in attributes) == blocks
