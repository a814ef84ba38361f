"""One bank of the token memory."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch.config import ArchConfig


class TokenBank(wiring.Component):
    """A RAM with a read and a write port.

    Reading the word that is being written gives an undefined value.

    Members
    -------
    write_addr, write_data, write_mask : In
        One bit of the mask for E bytes.
    read_addr : In
    read_data : Out
        Two cycles later: the RAM block's output register is used.
    """

    write_addr: Signal
    write_data: Signal
    write_mask: Signal
    read_addr: Signal
    read_data: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        address, word = exact_log2(arch.bank_words), 8 * arch.depth
        super().__init__({
            "write_addr": In(address), "write_data": In(word),
            "write_mask": In(arch.depth // arch.lanes),
            "read_addr": In(address), "read_data": Out(word),
        })

    @staticmethod
    def module_name(arch: ArchConfig) -> str:
        """Verilog name: equal for equal banks."""
        style = "_ultra" if arch.part.urams else ""
        return f"vitrify_bank_{arch.bank_words}x{arch.depth}_{arch.lanes}{style}"

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        attrs = {"ram_style": "ultra"} if self.arch.part.urams else {}
        m.submodules.memory = memory = Memory(
            shape=unsigned(8 * self.arch.depth), depth=self.arch.bank_words, init=[], attrs=attrs
        )
        write, read = memory.write_port(granularity=8 * self.arch.lanes), memory.read_port()
        word = Signal(8 * self.arch.depth, reset_less=True)
        m.d.comb += [
            write.addr.eq(self.write_addr), write.data.eq(self.write_data),
            write.en.eq(self.write_mask),
            read.addr.eq(self.read_addr), self.read_data.eq(word),
        ]
        m.d.sync += word.eq(read.data)
        return m
