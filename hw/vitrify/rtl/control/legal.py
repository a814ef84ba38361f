"""Field values that an instruction must not have."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import FORMATS, OPCODE_BITS, Opcode
from vitrify.arch.limits import limits
from vitrify.rtl.interfaces import instruction_layout

from .instruction_fetch import INSTRUCTION_BITS


class Legal(wiring.Component):
    """:func:`vitrify.arch.limits.check` for the known opcodes; two registers deep.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    word : In(512)
    illegal : Out(1)
        The word of two cycles before has a field out of range.
    """

    word: Signal
    illegal: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({"word": In(INSTRUCTION_BITS), "illegal": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Formats share fields: where, least, most, and for which opcodes.
        rules: dict[tuple[int, int, int, int], list[Opcode]] = {}
        for opcode, form in FORMATS.items():
            if {Opcode.ROUTE: not self.arch.experts,
                Opcode.PATTERN: not self.arch.patterns}.get(opcode):
                continue
            for name, (low, high) in limits(self.arch, opcode).items():
                at, bits = form.layout[name]
                least = 0 if low >= 0 else -(1 << bits - 1)  # what the bits hold
                if (low, high) != (least, least + (1 << bits) - 1):
                    rules.setdefault((at, bits, low, high), []).append(opcode)
        together = self._together() if self.arch.experts else []
        broken = Signal(len(rules) + len(together))
        m.d.sync += broken[len(rules):].eq(Cat(together))
        for i, ((at, bits, low, high), opcodes) in enumerate(rules.items()):
            meant = Cat(self.word[:OPCODE_BITS] == opcode for opcode in opcodes).any()
            m.d.sync += broken[i].eq(meant & _outside(self.word[at : at + bits], low, high))
        m.d.sync += self.illegal.eq(broken.any())
        return m


    def _together(self) -> list[Value]:
        """What fields must not be together."""
        matmul, route = (
            data.View(instruction_layout(opcode), self.word)
            for opcode in (Opcode.MATMUL, Opcode.ROUTE)
        )
        return [
            (matmul.opcode == Opcode.MATMUL) & matmul.gate & matmul.row_scale.any(),
            (route.opcode == Opcode.ROUTE) & (route.choices > route.experts),
        ]


def _outside(value: Value, low: int, high: int) -> Value:
    """``value < low | value > high`` without subtractions where the limits allow it."""
    if low < 0:
        number = value.as_signed()
        return (number < low) | (number > high)
    return (value == 0 if low == 1 else value < low) | _above(value, high)


def _above(value: Value, high: int) -> Value:
    bits = high.bit_length()
    if high == (1 << bits) - 1:
        return value[bits:].any()
    if high == 1 << bits - 1:
        return value[bits:].any() | (value[bits - 1] & value[: bits - 1].any())
    return value > high
