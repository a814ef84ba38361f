"""One bank of the token memory."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Const, Instance, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from vitrify.arch.config import ArchConfig


class TokenBank(wiring.Component):
    """A RAM with a read and a write port.

    Reading the word that is being written gives an undefined value.

    Parameters
    ----------
    arch : ArchConfig
    module : str, optional
        Be an instance of the Verilog module with this name, which was made from another
        :class:`TokenBank`: large memories are slow to elaborate, and all banks are equal.

    Members
    -------
    write_addr, write_data, write_mask : In
        One bit of the mask for E bytes.
    read_addr, read_en : In
    read_data : Out
        Two cycles later: the RAM block's output register is used.
    """

    write_addr: Signal
    write_data: Signal
    write_mask: Signal
    read_addr: Signal
    read_en: Signal
    read_data: Signal

    def __init__(self, arch: ArchConfig, *, module: str | None = None) -> None:
        self.arch = arch
        self.module = module
        address, word = exact_log2(arch.bank_words), 8 * arch.depth
        super().__init__({
            "write_addr": In(address), "write_data": In(word),
            "write_mask": In(arch.depth // arch.lanes),
            "read_addr": In(address), "read_en": In(1), "read_data": Out(word),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        if self.module is not None:
            m.submodules.ram = Instance(self.module, i_clk=ClockSignal(), i_rst=Const(0), **{
                f"{'i' if member.flow is wiring.In else 'o'}_{name}": getattr(self, name)
                for name, member in self.signature.members.items()
            })
            return m
        attrs = {"ram_style": "ultra"} if self.arch.part.urams else {}
        m.submodules.memory = memory = Memory(
            shape=unsigned(8 * self.arch.depth), depth=self.arch.bank_words, init=[], attrs=attrs
        )
        write, read = memory.write_port(granularity=8 * self.arch.lanes), memory.read_port()
        word = Signal(8 * self.arch.depth, reset_less=True)
        m.d.comb += [
            write.addr.eq(self.write_addr), write.data.eq(self.write_data),
            write.en.eq(self.write_mask),
            read.addr.eq(self.read_addr), read.en.eq(self.read_en),
            self.read_data.eq(word),
        ]
        m.d.sync += word.eq(read.data)
        return m
