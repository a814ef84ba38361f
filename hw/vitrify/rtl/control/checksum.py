"""The check field of an instruction: right or wrong."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import isa

from .instruction_fetch import INSTRUCTION_BITS


class Checksum(wiring.Component):
    """:func:`vitrify.arch.isa.checksum` in trees of XOR, one register deep.

    Members
    -------
    word : In(512)
    wrong : Out(1)
        The word of the cycle before is damaged.
    """

    word: Signal
    wrong: Signal

    def __init__(self) -> None:
        super().__init__({"word": In(INSTRUCTION_BITS), "wrong": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        body = isa.CHECK_AT // 8
        blank = isa.checksum(bytes(body))
        # The checksum is linear: what each bit of the word changes in it.
        effects = [
            isa.checksum((1 << i).to_bytes(body, "little")) ^ blank for i in range(isa.CHECK_AT)
        ]
        syndrome = Signal(isa.CHECK_BITS)
        for bit in range(isa.CHECK_BITS):
            parts = [self.word[i] for i, effect in enumerate(effects) if effect >> bit & 1]
            parts.append(self.word[isa.CHECK_AT + bit])
            m.d.sync += syndrome[bit].eq(Cat(parts).xor() ^ (blank >> bit & 1))
        m.d.comb += self.wrong.eq(syndrome.any())
        return m
