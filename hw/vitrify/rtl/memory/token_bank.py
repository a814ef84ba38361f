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
    write_valid, write_addr, write_data, write_mask : In
        One bit of the mask for E bytes; without ``write_valid`` nothing is written.
    read_addr : In
    read_data : Out
        :attr:`LATENCY` cycles later: registers on both sides of the RAM blocks, which lie all over
        the chip.
    """

    #: Cycles from an address to its word; a word may be read from the cycle after its write on.
    LATENCY = 3

    write_valid: Signal
    write_addr: Signal
    write_data: Signal
    write_mask: Signal
    read_addr: Signal
    read_data: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        address, word = exact_log2(arch.bank_words), 8 * arch.depth
        super().__init__({
            "write_valid": In(1), "write_addr": In(address), "write_data": In(word),
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
        # Where the ports are: driven by registers here.
        addr, data = (Signal.like(port, reset_less=True) for port in (write.addr, write.data))
        # They meet behind their registers: whoever writes has one bit to bring to a bank in time.
        valid, mask = Signal(), Signal.like(write.en, reset_less=True)
        asked = Signal.like(read.addr, reset_less=True)
        m.d.sync += [
            valid.eq(self.write_valid), mask.eq(self.write_mask), addr.eq(self.write_addr),
            data.eq(self.write_data), asked.eq(self.read_addr), word.eq(read.data),
        ]
        m.d.comb += [
            write.addr.eq(addr), write.data.eq(data),
            write.en.eq(mask & valid.replicate(len(mask))),
            read.addr.eq(asked), self.read_data.eq(word),
        ]
        return m
