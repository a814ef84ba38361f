"""Distances of the program, which counts skipped MATMULs, as distances of sequence numbers."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import isa

_BITS = isa.FORMATS[isa.Opcode.MATMUL].field("dep_distance").bits
#: Fields of an instruction that are translated.
KINDS = ("dep", "st", "wait")
DISTANCES = data.StructLayout(dict.fromkeys(KINDS, _BITS))


class Distances(wiring.Component):
    """A skipped MATMUL has no sequence number: waiting for it is waiting for what came before.

    Engines finish in order, so that is the last MATMUL at or before the one that is meant.

    Members
    -------
    advance, skip : :py:`In(1)`
        A MATMUL is dispatched, or skipped.
    program : :py:`In(DISTANCES)`
    real : :py:`Out(DISTANCES)`
        One cycle later.
    """

    advance: Signal
    skip: Signal
    program: Any
    real: Any

    def __init__(self) -> None:
        super().__init__({
            "advance": In(1), "skip": In(1), "program": In(DISTANCES), "real": Out(DISTANCES),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # Entry d: sequence numbers from "d instructions back" to the present one.
        known = [Signal(_BITS, init=d, name=f"back{d}") for d in range(isa.MAX_DISTANCE + 1)]
        with m.If(self.advance | self.skip):
            m.d.sync += [known[d].eq(known[d - 1] + self.advance)
                         for d in range(2, isa.MAX_DISTANCE + 1)]
        m.d.sync += [self.real[kind].eq(Array(known)[self.program[kind]]) for kind in KINDS]
        return m
