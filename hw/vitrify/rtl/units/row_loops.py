"""The row fetch's loops: for c tile, for k tile, for row; taps of a map and words by c tile."""

from __future__ import annotations

from typing import Any

from amaranth import Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import isa
from vitrify.arch.config import ArchConfig
from vitrify.rtl import interfaces
from vitrify.rtl.memory.index_memory import ENTRY_BITS

K_BITS = interfaces.matmul_bits("k_tiles")
C_BITS = interfaces.matmul_bits("c_tiles")
POSITION_BITS = interfaces.ROW_BITS + K_BITS
_SEQ = interfaces.SEQ_BITS
REPEAT_BITS = interfaces.pattern_bits("repeats")
STAT_BITS = interfaces.matmul_bits("stat_src")
_OUT_BITS = interfaces.pattern_bits("out_width")
#: A tap's row or column, from 0 to one less than there are.
_TAP_BITS = (isa.FORMATS[isa.Opcode.PATTERN].field("taps_x").max - 1).bit_length()
#: Map rows and columns, counted from the origin, and their bounds.
_MAP_BITS = 16


def instruction_layout(arch: ArchConfig) -> data.StructLayout:
    """What the loops know of an instruction, made once by :func:`enter`."""
    return data.StructLayout({
        "row_end": interfaces.ROW_BITS, "k_end": K_BITS, "c_end": C_BITS,   # last of each loop
        "dep_k": K_BITS, "sums": 1,
        **({"nibbles": 1} if arch.sees_nibbles else {}),
        **({
            "tapped": 1, "tap_end": K_BITS, "tap_x_end": _TAP_BITS,
            "stride": interfaces.pattern_bits("tap_stride"), "out_end": _OUT_BITS,
            "width": interfaces.pattern_bits("map_width"), "line": ENTRY_BITS, "origin": ENTRY_BITS,
            "top": signed(_MAP_BITS), "bottom": signed(_MAP_BITS),
            "left": signed(_MAP_BITS), "right": signed(_MAP_BITS),
            "k_step": K_BITS, "group_end": C_BITS,
            "repeats": REPEAT_BITS, "src_step": interfaces.ADDR_BITS, "stat_step": STAT_BITS,
        } if arch.patterns else {}),
    })


def enter(arch: ArchConfig, loops: Any, command: Any, sums: Value) -> list[Any]:
    """Statements that note a command: one subtraction each, behind a queue."""
    statements = [
        loops.row_end.eq(command.rows - 1), loops.k_end.eq(command.k_tiles - 1),
        loops.c_end.eq(command.c_tiles - 1), loops.dep_k.eq(command.dep_k), loops.sums.eq(sums),
    ]
    if arch.sees_nibbles:
        statements.append(loops.nibbles.eq(command.nibbles))
    if arch.patterns:
        tapped = command.tapped
        statements += [
            loops.tapped.eq(tapped),
            loops.tap_end.eq(Mux(tapped, command.tap_k, command.k_tiles) - 1),
            loops.tap_x_end.eq(command.taps_x - 1),
            loops.stride.eq(Mux(tapped, command.tap_stride, 1)),
            loops.out_end.eq(command.out_width - 1), loops.width.eq(command.map_width),
            loops.line.eq(command.line), loops.origin.eq(command.origin),
            loops.top.eq(-command.origin_y),
            loops.bottom.eq(command.map_height - command.origin_y),
            loops.left.eq(-command.origin_x),
            loops.right.eq(command.map_width - command.origin_x),
            loops.k_step.eq(command.k_step), loops.group_end.eq(command.c_group - 1),
            loops.repeats.eq(command.repeats), loops.src_step.eq(command.src_step),
            loops.stat_step.eq(command.stat_src_step),
        ]
    return statements


def row_layout(arch: ArchConfig) -> data.StructLayout:
    """A row on its way from the loops to its request."""
    return data.StructLayout({
        "slot": 1,
        "row": interfaces.ROW_BITS,
        "word": K_BITS,                 # of the tensor's row
        "first": 1, "last": 1, "final": 1, "swap": 1, "sum": 1,
        "short": 1,                     # the last word of a row, or of a tap
        "needs_row": 1,                 # word >= dep_k
        "position": POSITION_BITS,      # k * rows + row
        "tile": _SEQ,                   # global c tile
        "end": 1,                       # last row of the instruction
        **({"nibbles": 1} if arch.sees_nibbles else {}),            # as in the tag
        **({"paired": 1} if arch.nibble_tiles > 1 else {}),
        # Row of the tensor, or of the list; outside the map, zeros are read.
        **({"pixel": ENTRY_BITS, "outside": 1} if arch.patterns else {}),
        # What a repetition adds to the word's address and to the entry of the statistics memory.
        **({"base": interfaces.ADDR_BITS, "stat_base": STAT_BITS, "odd": 1}
           if arch.patterns else {}),
    })


class RowLoops(wiring.Component):
    """One row after the other, with its place in the tensor.

    Taps are found by counting: no multiplier, no divider.  Places are counted from the first tap
    of the first output pixel, so that every loop begins with zeros.

    Members
    -------
    i : :py:`In(instruction_layout(arch))`
        The present instruction.
    advance : :py:`In(1)`
        The row is taken.
    o : :py:`Out(row_layout(arch))`
        Without ``slot``.
    place : :py:`Out(ENTRY_BITS)`
        The row's number: of an output pixel's tap, counted from the first one.
    """

    i: Any
    advance: Signal
    o: Any
    place: Signal

    def __init__(self, arch: ArchConfig) -> None:
        self.arch = arch
        super().__init__({
            "i": In(instruction_layout(arch)), "advance": In(1), "o": Out(row_layout(arch)),
            "place": Out(ENTRY_BITS),
        })

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        self._row, self._k = Signal(interfaces.ROW_BITS), Signal(K_BITS)
        self._row_end, self._k_end, self._c_end = Signal(), Signal(), Signal()
        self._last_time: Any = Signal() if self.arch.patterns else Const(1)
        c, position, tile = Signal(C_BITS), Signal(POSITION_BITS), Signal(_SEQ)
        i, o = self.i, self.o
        at_end: Value = c == i.c_end
        c_step: Any = 1
        tile_step: Any = 1
        if self.arch.sees_nibbles:
            m.d.comb += o.nibbles.eq(i.nibbles)
        if self.arch.nibble_tiles > 1:
            # Two c tiles in a pass, unless one is left over.
            m.d.comb += o.paired.eq(i.nibbles & ~at_end)
            c_step, tile_step = 1 + i.nibbles, 1 + o.paired
            at_end = (c[1:] == i.c_end[1:]) & (i.nibbles | (c[0] == i.c_end[0]))
        m.d.comb += [
            self._row_end.eq(self._row == i.row_end), self._k_end.eq(self._k == i.k_end),
            self._c_end.eq(at_end),
            o.row.eq(self._row), o.first.eq(self._k == 0), o.last.eq(self._k_end),
            o.final.eq(self._row_end), o.swap.eq(self._row == 0), o.sum.eq(i.sums & (c == 0)),
            o.position.eq(position), o.tile.eq(tile),
            o.end.eq(self._row_end & self._k_end & self._c_end & self._last_time),
            o.needs_row.eq(o.word >= i.dep_k),
        ]
        with m.If(self.advance):
            m.d.sync += [self._row.eq(self._row + 1), position.eq(position + 1)]
            with m.If(self._row_end):
                m.d.sync += [self._row.eq(0), self._k.eq(self._k + 1)]
                with m.If(self._k_end):
                    m.d.sync += [
                        self._k.eq(0), position.eq(0), c.eq(c + c_step), tile.eq(tile + tile_step),
                    ]
                    with m.If(self._c_end):
                        m.d.sync += c.eq(0)
        if self.arch.patterns:
            self._words(m)
            self._taps(m)
            self._repeat(m)
        else:
            m.d.comb += [o.word.eq(self._k), o.short.eq(self._k_end), self.place.eq(self._row)]
        return m

    def _words(self, m: Module) -> None:
        """Word within the row: from tap to tap again, further on for later c tiles."""
        i, o = self.i, self.o
        word, first, in_tap = Signal(K_BITS), Signal(K_BITS), Signal(K_BITS)
        group, following = Signal(C_BITS), Signal(K_BITS)
        group_end = group == i.group_end
        self._tap_end = Signal()
        m.d.comb += [
            self._tap_end.eq(in_tap == i.tap_end), o.word.eq(word), o.short.eq(self._tap_end),
            following.eq(first + Mux(group_end, i.k_step, 0)),
        ]
        with m.If(self.advance & self._row_end):
            m.d.sync += [word.eq(word + 1), in_tap.eq(in_tap + 1)]
            with m.If(self._tap_end):
                m.d.sync += [word.eq(first), in_tap.eq(0)]
            with m.If(self._k_end):
                m.d.sync += [
                    word.eq(following), first.eq(following), group.eq(Mux(group_end, 0, group + 1))
                ]
                with m.If(self._c_end):
                    m.d.sync += [word.eq(0), first.eq(0), group.eq(0)]

    def _taps(self, m: Module) -> None:
        """Output pixel and tap to map pixel, and whether it is inside."""
        i, o = self.i, self.o
        out, tap_x = Signal(_OUT_BITS), Signal(_TAP_BITS)
        y, x, place = Signal(_MAP_BITS), Signal(_MAP_BITS), Signal(ENTRY_BITS)
        # Where the present output row began; the tap; the tap's row.
        line = Signal(ENTRY_BITS)
        tap, tap_y, tap_at = Signal(ENTRY_BITS), Signal(_TAP_BITS), Signal(ENTRY_BITS)
        m.d.comb += [
            self.place.eq(place), o.pixel.eq(place + i.origin),
            o.outside.eq(i.tapped & ~(
                (y.as_signed() >= i.top) & (y.as_signed() < i.bottom)
                & (x.as_signed() >= i.left) & (x.as_signed() < i.right)
            )),
        ]

        def begin(at: Value, new_y: Value, new_x: Value) -> list[Any]:
            return [place.eq(at), line.eq(at), y.eq(new_y), x.eq(new_x)]

        with m.If(self.advance):
            m.d.sync += [out.eq(out + 1), x.eq(x + i.stride), place.eq(place + i.stride)]
            with m.If(self._row_end):
                m.d.sync += out.eq(0)
                with m.If(self._k_end):
                    m.d.sync += [
                        tap.eq(0), tap_at.eq(0), tap_y.eq(0), tap_x.eq(0),
                        place.eq(0), line.eq(0), y.eq(0), x.eq(0),
                    ]
                with m.Elif(~self._tap_end):
                    m.d.sync += begin(tap, tap_y, tap_x)
                with m.Elif(tap_x != i.tap_x_end):
                    m.d.sync += [
                        tap.eq(tap + 1), tap_x.eq(tap_x + 1), *begin(tap + 1, tap_y, tap_x + 1)
                    ]
                with m.Else():
                    m.d.sync += [
                        tap.eq(tap_at + i.width), tap_at.eq(tap_at + i.width),
                        tap_y.eq(tap_y + 1), tap_x.eq(0),
                        *begin(tap_at + i.width, tap_y + 1, Const(0)),
                    ]
            with m.Elif(i.tapped & (out == i.out_end)):
                m.d.sync += [
                    out.eq(0), x.eq(tap_x), y.eq(y + i.stride), place.eq(line + i.line),
                    line.eq(line + i.line),
                ]

    def _repeat(self, m: Module) -> None:
        """All of it again, some words and entries further on."""
        i, o = self.i, self.o
        time, base, stat = Signal(REPEAT_BITS), Signal.like(o.base), Signal.like(o.stat_base)
        m.d.comb += [
            self._last_time.eq(time == i.repeats), o.base.eq(base), o.stat_base.eq(stat),
            o.odd.eq(time[0]),
        ]
        with m.If(self.advance & self._row_end & self._k_end & self._c_end):
            m.d.sync += [
                time.eq(time + 1), base.eq(base + i.src_step), stat.eq(stat + i.stat_step),
            ]
            with m.If(self._last_time):
                m.d.sync += [time.eq(0), base.eq(0), stat.eq(0)]
