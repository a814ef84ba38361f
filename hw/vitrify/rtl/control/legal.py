"""Field values that an instruction must not have, alone or together."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.config import ArchConfig
from vitrify.arch.isa import FORMATS, NO_PATTERN, OPCODE_BITS, Opcode
from vitrify.arch.limits import limits, opcodes
from vitrify.arch.support import forbidden
from vitrify.rtl.interfaces import instruction_layout

from .instruction_fetch import INSTRUCTION_BITS
from .pattern import PATTERN


class Legal(wiring.Component):
    """:func:`vitrify.arch.support.check` for the known opcodes; two registers deep.

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    word : In(512)
    pattern : In(PATTERN)
        What the PATTERN before a MATMUL asks for, if the core has patterns.
    illegal : Out(1)
        The word of two cycles before has a field out of range, or fields that exclude each other.
    """

    word: Signal
    pattern: Any
    illegal: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "word": In(INSTRUCTION_BITS), "illegal": Out(1),
            **({"pattern": In(PATTERN)} if arch.patterns else {}),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Formats share fields: where, least, most, and for which opcodes.
        rules: dict[tuple[int, int, int, int], list[Opcode]] = {}
        for opcode in opcodes(self.arch):
            form = FORMATS[opcode]
            for name, (low, high) in limits(self.arch, opcode).items():
                at, bits = form.layout[name]
                least = 0 if low >= 0 else -(1 << bits - 1)  # what the bits hold
                if (low, high) != (least, least + (1 << bits) - 1):
                    rules.setdefault((at, bits, low, high), []).append(opcode)
        together = self._together()
        broken = Signal(len(rules) + len(together))
        m.d.sync += broken[len(rules):].eq(Cat(together))
        for i, ((at, bits, low, high), meant_for) in enumerate(rules.items()):
            meant = Cat(self.word[:OPCODE_BITS] == opcode for opcode in meant_for).any()
            m.d.sync += broken[i].eq(meant & _outside(self.word[at : at + bits], low, high))
        m.d.sync += self.illegal.eq(broken.any())
        return m

    def _together(self) -> list[Value]:
        """What fields must not be together."""
        arch = self.arch
        matmul, route = (
            data.View(instruction_layout(opcode), self.word)
            for opcode in (Opcode.MATMUL, Opcode.ROUTE)
        )
        gains = matmul.k_tiles
        if arch.patterns:
            gains = Mux(self.pattern.gain_words == 0, gains, self.pattern.gain_words)
        found = [matmul.load_gain & _above(gains, arch.max_dim_words)]
        if arch.patterns:
            found.append(self.pattern.tapped & (matmul.k_tiles != self.pattern.all_taps))
        for condition in forbidden(arch):
            fields = {name: (self.pattern if name in NO_PATTERN else matmul)[name]
                      for name in condition}
            found.append(Cat(
                fields[name].matches(*values) if values else fields[name].any()
                for name, values in condition.items()
            ).all())
        found = [(matmul.opcode == Opcode.MATMUL) & wrong for wrong in found]
        if arch.experts:
            found.append((route.opcode == Opcode.ROUTE) & (route.choices > route.experts))
        return found


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
