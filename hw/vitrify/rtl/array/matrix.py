"""The matrix unit: C dot products of depth K share one activation vector every cycle."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import memmap
from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import operand_layout, pipe, tile_write
from vitrify.rtl.lib.arith import total
from vitrify.rtl.lib.shared import place
from vitrify.rtl.units.delay import Delays

from . import thirds
from .layout import sums_layout
from .slice import FIELD_X, ArraySlice, chain, columns, skew, vectors


class MatrixUnit(wiring.Component):
    """Stationary C x K tile, streaming rows, one row a cycle.

    A row tagged ``swap`` finds the tile that the loader has completed, the rows before it the one
    before.  The unit decodes tile writes, lets the elements of a chain run late by their place in
    it, writes and swaps alike, and hands everything to the slices, which do the work.

    Parameters
    ----------
    arch : ArchConfig
        ``packing`` puts two columns on one multiplier; results are the same.  ``nibble_tiles``
        puts two tiles there: of a row whose tile is tagged ``nibbles`` the low and the high half
        of each sum belong to one of them, else they have to be merged (:mod:`.packing`).
        ``nibble_thirds`` makes three columns of two in such rows (:mod:`.thirds`).

    Members
    -------
    i : In(pipe(operand_layout))
    tile : In(pipe(tile_write))
        Bytes of the next tile.
    swapped : Out(1)
        Pulse: a row with ``swap`` has passed.
    o : Out(pipe(sums_layout))
        Dot products, :attr:`latency` cycles after the row.
    """

    i: Any
    tile: Any
    swapped: Signal
    o: Any

    #: A write on ``tile`` this many cycles after a row with ``swap``, or later, belongs to the
    #: tile that the next swap takes; every earlier one to the tile that this row finds.
    swap_latency = -1

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        super().__init__({
            "i": In(pipe(operand_layout(arch))),
            "tile": In(pipe(tile_write(arch))),
            "swapped": Out(1),
            "o": Out(pipe(sums_layout(arch))),
        })

    @property
    def latency(self) -> int:
        """Cycles from ``i`` to ``o``."""
        return 1 + ArraySlice.latency(self._arch)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        arch, length = self._arch, chain(self._arch)
        late = Delays(m)
        late.put("valid", self.i.valid, 0, reset=True)
        late.put("tag", self.i.p.tag.as_value(), 0)
        late.put("swap", self.i.valid & self.i.p.tag.swap, 0)
        if arch.sees_nibbles:
            late.put("nibbles", self.i.p.tag.nibbles, 0)
        operand = self.i.p.data
        for j in range(length):
            late.put(f"x{j}", Cat(
                _extend(operand[k], FIELD_X) for k in range(j, arch.depth, length)), 0)

        slices = place(
            m, platform, lambda: ArraySlice(arch), name=ArraySlice.module_name(arch),
            count=arch.width // columns(arch),
        )
        if arch.nibble_thirds:
            offset = self._offset(m, late)
            m.d.comb += [unit.offset.eq(offset) for unit in slices]
        write = Signal(tile_write(arch), reset_less=True)
        valid = Signal()
        m.d.sync += [write.eq(self.tile.p), valid.eq(self.tile.valid)]
        late.put("write", valid, 0)
        late.put("data", write.data, 0)
        odd = write.high if arch.stored_weights else write.data
        if arch.nibble_thirds:
            late.put("even", thirds.even(write.data, write.nibbles), 0)
            if arch.stored_nibbles:
                # Of a pair, when it has two such columns; else a copy.
                again = Mux(write.nibbles, odd, write.data)
                late.put("again", thirds.even(again, write.nibbles), 0)
            for half in (0, 1):
                late.put(f"odd{half}", thirds.odd(odd, half, write.nibbles), 0)
        elif arch.stored_weights:
            late.put("odd0", odd, 0)
        for half in (0, 1) if arch.tile_quads else ():
            late.put(f"odd{1 + half}", write.more.word_select(half, 8 * arch.depth), 0)
        for s, unit in enumerate(slices):
            whole, here = self._select(write, s)
            late.put(f"whole{s}", whole, 0)
            for j in range(length):
                at, behind = f"at{s}_{j}", skew(j)
                late.put(at, Cat(
                    (here & (write.index == k)).replicate(8) for k in range(j, arch.depth, length)
                ), 0)
                position = unit.position[j]
                byte = late.at("data", behind)
                lanes = range(j, arch.depth, length)
                even = late.at("even" if arch.nibble_thirds else "data", behind)
                across = _bytes(byte, (c % arch.depth for c in self._columns(s)))
                if arch.nibble_thirds:
                    # An even column and an odd one of bytes.
                    across ^= Const(0x80, 16).replicate(len(across) // 16)
                m.d.comb += [
                    position.x.eq(late.at(f"x{j}", 1 + behind)),
                    position.swap.eq(late.at("swap", behind)),
                    position.write.eq(late.at("write", behind)),
                    position.whole.eq(late.at(f"whole{s}", behind)),
                    position.at.eq(late.at(at, behind)),
                    position.depth.eq(_bytes(even, lanes)),
                    position.across.eq(across),
                ]
                if arch.sees_nibbles:
                    m.d.comb += position.nibbles.eq(late.at("nibbles", behind))
                if arch.stored_nibbles:
                    # Columns of the lower half come one by one (:func:`_pair_of_thirds`).
                    upper = self._columns(s).start >= arch.width // 2
                    m.d.comb += position.second.eq(
                        _bytes(late.at("again", behind), lanes) if upper else position.depth)
                if vectors(arch):
                    m.d.comb += position.odd.eq(Cat(
                        _bytes(late.at(f"odd{one}", behind), lanes)
                        for one in range(vectors(arch))))
        m.d.comb += [
            self.swapped.eq(late.at("swap", 1)),
            self.o.valid.eq(late.at("valid", self.latency)),
            self.o.p.tag.as_value().eq(late.at("tag", self.latency)),
            self.o.p.data.as_value().eq(Cat(unit.sums for unit in slices)),
        ]
        return m

    def _offset(self, m: Module, late: Delays) -> Value:
        """What the first product of each chain is raised by, in the cycle of the operands."""
        operand, length, offsets = self.i.p.data, chain(self._arch), []
        nibbles = late.at("nibbles", 1)
        for at in range(0, self._arch.depth, length):
            halves = [
                total(list(operand[first : first + length // 2]))
                for first in (at, at + length // 2)]
            sums = [Signal.like(half, name=f"operands_{at}_{i}", reset_less=True)
                    for i, half in enumerate(halves)]
            m.d.sync += [one.eq(half) for one, half in zip(sums, halves, strict=True)]
            offsets.append(thirds.offset(total(sums), nibbles))
        return Cat(offsets)

    def _columns(self, s: int) -> range:
        n = columns(self._arch)
        return range(s * n, (s + 1) * n)

    def _select(self, write: data.View, s: int) -> tuple[Value, Value]:
        """Columns of a slice that are written whole; whether all get the byte at the index."""
        mine = self._columns(s)
        pair = write.pair if self._arch.stored_weights else Const(0)
        chosen = [Mux(pair, write.index == c // 2, write.index == c) for c in mine]
        if self._arch.tile_quads:
            chosen = [Mux(write.quad, write.index == c // 4, usual)
                      for c, usual in zip(mine, chosen, strict=True)]
        if self._arch.nibble_thirds:
            places = [write.index == thirds_word(self._arch, c) for c in mine]
            if self._arch.stored_nibbles:
                places = [
                    Mux(pair, write.index == _pair_of_thirds(self._arch, c), one)
                    for c, one in zip(mine, places, strict=True)
                ]
            chosen = [
                Mux(write.nibbles, one, usual)
                for one, usual in zip(places, chosen, strict=True)
            ]
        whole = Cat(~write.columns & one for one in chosen)
        return whole, write.columns & (write.group == mine.start // self._arch.depth)


def thirds_word(arch: ArchConfig, c: int) -> int:
    """Word of a tile of nibbles, in thirds, that byte column ``c`` takes."""
    return arch.width // 2 + c // 4 if c % 2 else c // 2


def _pair_of_thirds(arch: ArchConfig, c: int) -> int:
    """Pair word of a STORED tile of nibbles that byte column ``c`` takes."""
    return memmap.stored_thirds(arch.width).index(thirds_word(arch, c)) // 2


def _extend(value: Any, bits: int) -> Value:
    return Cat(value, value[-1].replicate(bits - len(value)))


def _bytes(word: Any, indices: Any) -> Value:
    return Cat(word.word_select(index, 8) for index in indices)
