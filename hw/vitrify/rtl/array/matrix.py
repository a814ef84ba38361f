"""The matrix unit: C dot products of depth K share one activation vector every cycle."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import dot_bits, operand_layout, pipe, sums_layout, tile_write

from .packing import Packing
from .tile import TILE_LATENCY, active_bytes, active_pairs, byte, shadow_tile

#: Terms that one registered adder level sums.
_RADIX = 4


class MatrixUnit(wiring.Component):
    """Stationary C x K tile, streaming rows.

    A row tagged ``swap`` finds the tile that the loader has completed, the rows before it the one
    before.  One row a cycle.  Operands are registered twice on their way to the multipliers,
    products once, sums every :data:`_RADIX` terms.

    Parameters
    ----------
    arch : ArchConfig
        ``packing`` puts two columns on one multiplier; results are the same.

    Members
    -------
    i : In(pipe(operand_layout))
    tile : In(pipe(tile_write))
        Bytes of the next tile.
    swapped : Out(1)
        Pulse: the tile has been taken, the next may be written.
    o : Out(pipe(sums_layout))
        Dot products, :attr:`latency` cycles after the row.
    """

    i: Any
    tile: Any
    swapped: Signal
    o: Any

    #: A write on ``tile`` this many cycles after a row with ``swap``, or later, belongs to the
    #: tile that the next swap takes; every earlier one to the tile that this row finds.
    swap_latency = 2 - TILE_LATENCY

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._packing = Packing.of(arch) if arch.packing else None
        super().__init__({
            "i": In(pipe(operand_layout(arch))),
            "tile": In(pipe(tile_write(arch))),
            "swapped": Out(1),
            "o": Out(pipe(sums_layout(arch))),
        })

    @property
    def latency(self) -> int:
        """Cycles from ``i`` to ``o``."""
        # Two operand registers, the product register, then the adder levels.
        terms, levels = self._arch.depth, 0
        if self._packing is not None:
            terms //= self._packing.chain
            levels += 2
        return 3 + levels + _levels(terms)

    def elaborate(self, _platform: Any) -> Module:
        m = Module()
        arch = self._arch
        operand_bits = formats.OPERAND_BITS * arch.depth

        # Operand and tag, delayed; the tag accompanies the row to the output.
        valid, tag = [self.i.valid], [self.i.p.tag.as_value()]
        for stage in range(1, self.latency + 1):
            valid.append(Signal(name=f"valid_{stage}"))
            tag.append(Signal(len(tag[0]), name=f"tag_{stage}", reset_less=True))
            m.d.sync += [valid[stage].eq(valid[stage - 1]), tag[stage].eq(tag[stage - 1])]
        vector = [Signal(operand_bits, name=f"operand_{n}", reset_less=True) for n in (1, 2)]
        m.d.sync += [vector[0].eq(self.i.p.data.as_value()), vector[1].eq(vector[0])]
        x = [vector[1].word_select(i, formats.OPERAND_BITS).as_signed() for i in range(arch.depth)]

        first = Signal.like(self.i.p.tag, name="first_tag")
        m.d.comb += first.as_value().eq(tag[1])
        swap = Signal()
        m.d.comb += swap.eq(valid[1] & first.swap)
        m.d.sync += self.swapped.eq(swap)
        shadow = shadow_tile(m, arch, self.tile)
        if self._packing is None:
            sums = self._plain(m, active_bytes(m, arch, shadow, swap), x)
        else:
            pairs = active_pairs(m, arch, shadow, swap, self._packing.shift)
            sums = self._packed(m, self._packing, pairs, x)

        m.d.comb += [
            self.o.valid.eq(valid[-1]),
            self.o.p.tag.as_value().eq(tag[-1]),
            self.o.p.data.as_value().eq(Cat(_fit(s, dot_bits(arch)) for s in sums)),
        ]
        return m

    def _plain(self, m: Module, active: list[Signal], x: list[Value]) -> list[Value]:
        sums = []
        for c, word in enumerate(active):
            products = _register(m, f"product_{c}", [
                value * byte(word, k) for k, value in enumerate(x)
            ])
            sums.append(_tree(m, f"sum_{c}", products))
        return sums

    def _packed(
        self, m: Module, packing: Packing, pairs: list[list[Signal]], x: list[Value]
    ) -> list[Value]:
        sums = []
        for p, row in enumerate(pairs):
            products = _register(m, f"product_{p}", [
                value * weight for value, weight in zip(x, row, strict=True)
            ])
            chains = _register(m, f"chain_{p}", [
                sum(products[n + 1 : n + packing.chain], products[n])
                for n in range(0, len(products), packing.chain)
            ])
            parts = [packing.split(chain) for chain in chains]
            for side in (0, 1):
                terms = _register(m, f"part_{p}_{side}", [part[side] for part in parts])
                sums.append(_tree(m, f"sum_{p}_{side}", terms))
        return sums


def _levels(terms: int) -> int:
    """Registered adder levels for a number of terms."""
    levels = 0
    while terms > 1:
        terms = -(-terms // _RADIX)
        levels += 1
    return levels


def _register(m: Module, name: str, values: list[Value]) -> list[Value]:
    """One register for each value, as wide as the value."""
    registers: list[Value] = []
    for n, value in enumerate(values):
        register = Signal(value.shape(), name=f"{name}_{n}", reset_less=True)
        m.d.sync += register.eq(value)
        registers.append(register)
    return registers


def _tree(m: Module, name: str, terms: list[Value]) -> Value:
    """Sum with a register behind every level."""
    level = 0
    while len(terms) > 1:
        terms = _register(m, f"{name}_{level}", [
            sum(terms[n + 1 : n + _RADIX], terms[n]) for n in range(0, len(terms), _RADIX)
        ])
        level += 1
    return terms[0]


def _fit(value: Value, bits: int) -> Value:
    """A signed value cut or sign-extended to ``bits`` bits (it fits by construction)."""
    if len(value) >= bits:
        return value[:bits]
    return Cat(value, value[-1].replicate(bits - len(value)))
