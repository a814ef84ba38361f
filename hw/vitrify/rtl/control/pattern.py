"""What a PATTERN says, until its MATMUL comes."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch.isa import FORMATS, NO_PATTERN, Opcode
from vitrify.rtl.interfaces import instruction_layout, pattern_bits

from .instruction_fetch import INSTRUCTION_BITS

_FIELDS = FORMATS[Opcode.PATTERN].fields
#: Fields of a PATTERN, and ``taps_y * taps_x * tap_k``.
PATTERN = data.StructLayout({
    **{f.name: signed(f.bits) if f.low < 0 else unsigned(f.bits) for f in _FIELDS},
    "all_taps": sum(pattern_bits(name) for name in ("taps_y", "taps_x", "tap_k")),
})
_NONE = NO_PATTERN | {"all_taps": 1}


class KeptPattern(wiring.Component):
    """Keep a PATTERN for the next MATMUL.

    Members
    -------
    word : In(512)
    keep : In(1)
        The word is a PATTERN, and has been there for three cycles.
    forget : In(1)
    o : Out(PATTERN)
    """

    word: Signal
    keep: Signal
    forget: Signal
    o: Any

    def __init__(self) -> None:
        super().__init__({
            "word": In(INSTRUCTION_BITS), "keep": In(1), "forget": In(1),
            "o": Out(PATTERN, init=_NONE),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        pattern = data.View(instruction_layout(Opcode.PATTERN), self.word)
        taps, all_taps = Signal.like(pattern.taps_y * pattern.taps_x), Signal.like(self.o.all_taps)
        m.d.sync += [taps.eq(pattern.taps_y * pattern.taps_x), all_taps.eq(taps * pattern.tap_k)]
        with m.If(self.keep):
            m.d.sync += [self.o.all_taps.eq(all_taps),
                         *(self.o[f.name].eq(pattern[f.name]) for f in _FIELDS)]
        with m.Elif(self.forget):
            m.d.sync += self.o.eq(PATTERN.const(_NONE))
        return m
