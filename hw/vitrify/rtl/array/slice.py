"""A slice of the matrix unit: a few columns with their own copies of the broadcast registers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig
from vitrify.rtl.lib.arith import total

from . import thirds
from .layout import dot_bits
from .packing import Packing

#: What the Verilog names of slices begin with.
NAME = "vitrify_slice"
#: Columns of a slice at most: what one copy of the operand registers drives.
COLUMNS = 8
#: Products that add up in a chain, each a cycle after the one before (a DSP cascade).
CHAIN = 4
#: Cycles from a row's swap, at the last position of a chain, to the chain's sum.
_TO_SUM = 3
#: Terms that one registered adder level sums.
_RADIX = 4
#: Of a position: what nothing hangs on without `swap` or `write`.
_DATA = ("x", "whole", "depth", "odd", "second", "nibbles", "at", "across")
#: Operands and prepared stationary values take fields of these widths in their registers:
#: simulators find them in one machine word, synthesis drops bits that are constant or equal.
FIELD_X, _FIELD = 16, 32


def columns(arch: ArchConfig) -> int:
    """Columns of each slice, all in one group of K columns."""
    return min(COLUMNS, arch.width, arch.depth)


def chain(arch: ArchConfig) -> int:
    """Length of a chain of products."""
    packing = Packing.of(arch)
    return min(CHAIN, packing.chain) if packing else CHAIN


def skew(position: int) -> int:
    """Cycles by which position ``position`` of every chain runs late."""
    # The first product has no sum to wait for: it meets the second one.
    return max(0, position - 1)


def position_signature(arch: ArchConfig) -> wiring.Signature:
    """What one chain position of a slice gets: its K / chain operands and bytes."""
    lanes, n = arch.depth // chain(arch), columns(arch)
    return wiring.Signature({
        "x": Out(FIELD_X * lanes),     # operands, sign-extended
        "swap": Out(1),                 # the tile changes: the operand one cycle later meets it
        "write": Out(1),                # something below is written
        "whole": Out(n),                # columns whose depth vector is written ...
        "depth": Out(8 * lanes),        # ... and its bytes ...
        # ... those of odd columns, or of every first and every second of them; or those of all
        # columns but each fourth
        **({"odd": Out(8 * lanes * vectors(arch))} if vectors(arch) else {}),
        # Every second even column has its own, if a pair of words may be of two such.
        **({"second": Out(8 * lanes)} if arch.stored_nibbles else {}),
        # With every row: the tile's bytes are nibbles, two or three of a pair of columns.
        **({"nibbles": Out(1)} if arch.sees_nibbles else {}),
        "at": Out(8 * lanes),           # else: mask of the byte written in every column ...
        "across": Out(8 * n),           # ... and each column's byte
    })


def vectors(arch: ArchConfig) -> int:
    """Depth vectors that come for other columns beside those for even, or every fourth, ones."""
    if arch.tile_quads:
        return 3
    return 2 if arch.nibble_thirds else int(arch.stored_weights)


def _vector(arch: ArchConfig, c: int) -> int | None:
    """Which of :func:`vectors` column ``c`` takes; ``None``: none of them."""
    if arch.tile_quads:
        return c % 4 - 1 if c % 4 else None
    return c // 2 % vectors(arch) if c % 2 and vectors(arch) else None


class ArraySlice(wiring.Component):
    """``columns(arch)`` dot products of depth K, one operand vector a cycle.

    Element ``g * chain + j`` of the operand enters at position ``j``, :func:`skew` cycles late,
    and so do the tile writes and swaps that belong to it; the shadow and active bytes live here.
    With ``packing`` two columns share each multiplier, with ``nibble_tiles`` two tiles of each
    column (:mod:`.packing`), with ``nibble_thirds`` three columns (:mod:`.thirds`).

    Parameters
    ----------
    arch : ArchConfig

    Members
    -------
    position : In(position_signature).array(chain)
    offset : In(chains x thirds.OFFSET), with position 0; with ``nibble_thirds`` alone
        What the first product of every chain is raised by.
    sums : Out(columns x signed dot_bits), :func:`latency` cycles after position 0
        With ``nibble_tiles``, low and high half of every column; with ``nibble_thirds``, lowest,
        highest and middle field of every two columns.
    """

    position: list[Any]
    offset: Signal
    sums: Any

    def __init__(self, arch: ArchConfig) -> None:
        self._arch = arch
        self._lanes = arch.depth // chain(arch)
        self._bits = dot_bits(arch)
        super().__init__({
            "position": In(position_signature(arch)).array(chain(arch)),
            **({"offset": In(thirds.OFFSET * self._lanes)} if arch.nibble_thirds else {}),
            "sums": Out(data.ArrayLayout(signed(self._bits), arch.sums(columns(arch)))),
        })

    @staticmethod
    def latency(arch: ArchConfig) -> int:
        """Cycles from position 0 to the sums."""
        # operand register, product register, additions of the chain, adder levels; parts of a
        # packed sum: split before these, three fields put together in two steps behind them
        splits = (Packing.of(arch) is not None) + arch.nibble_thirds
        return 1 + 1 + chain(arch) - 1 + splits + _levels(arch)

    @staticmethod
    def module_name(arch: ArchConfig) -> str:
        """Verilog name: equal for equal slices."""
        packing = Packing.of(arch)
        packed = f"_packed{packing.shift}" if packing else ""
        packed += "_thirds" if arch.nibble_thirds else ""
        pairs = "_quads" if arch.tile_quads else "_pairs" if arch.stored_weights else ""
        return f"{NAME}_{columns(arch)}x{arch.depth}{packed}{pairs}"

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        arch, n = self._arch, columns(self._arch)
        inside = []
        for j, position in enumerate(self.position):
            copy = SimpleNamespace(**{
                name: Signal(member.shape, name=f"copy_{j}__{name}", reset_less=name in _DATA)
                for name, member in position_signature(arch).members.items()
            })
            m.d.sync += [
                register.eq(getattr(position, name)) for name, register in vars(copy).items()
            ]
            inside.append(copy)
        shadow = [self._shadow(m, j, copy) for j, copy in enumerate(inside)]
        sums: list[Any] = []
        packing = Packing.of(arch)
        if arch.nibble_thirds:
            nibbles = inside[-1].nibbles
            for stage in range(_TO_SUM + _levels(arch)):
                nibbles, = _register(m, f"nibbles_{stage}", [nibbles])
            flags = nibbles, *_register(m, "nibbles_late", [nibbles])
            offset, = _register(m, "offset", [self.offset])
            offsets = [offset.word_select(g, thirds.OFFSET) for g in range(self._lanes)]
            for c in range(0, n, 2):
                sums += self._three(m, c, inside, shadow, offsets, flags)
        elif packing and packing.of_bytes:
            for c in range(0, n, 2):
                sums += self._pair(m, packing, c, inside, [
                    [packing.join(low, high) for low, high in zip(s[c], s[c + 1], strict=True)]
                    for s in shadow
                ])
        elif packing:
            for c in range(n):
                sums += self._pair(m, packing, 2 * c, inside, [
                    [Mux(position.nibbles,
                         packing.join(byte[:4].as_signed(), byte[4:].as_signed()).as_signed(), byte)
                     for byte in s[c]]
                    for position, s in zip(inside, shadow, strict=True)
                ])
        else:
            for c in range(n):
                totals = self._chains(
                    m, c, formats.STATIONARY_BITS, inside, [s[c] for s in shadow])
                sums.append(self._tree(m, c, totals))
        m.d.comb += self.sums.as_value().eq(Cat(_fit(s, self._bits) for s in sums))
        return m

    def _shadow(self, m: Module, j: int, position: Any) -> list[list[Any]]:
        """Shadow bytes of one position: ``[column][lane]``."""
        words = []
        for c in range(columns(self._arch)):
            word = Signal(8 * self._lanes, name=f"shadow_{c}_{j}", reset_less=True)
            across = position.across.word_select(c, 8).replicate(self._lanes)
            depth, other = position.depth, _vector(self._arch, c)
            if other is not None:
                depth = position.odd.word_select(other, 8 * self._lanes)
            elif c % 4 == 2 and self._arch.stored_nibbles:
                depth = position.second
            with m.If(position.write):
                m.d.sync += word.eq(Mux(
                    position.whole[c], depth,
                    (word & ~position.at) | (across & position.at),
                ))
            words.append([word.word_select(i, 8).as_signed() for i in range(self._lanes)])
        return words

    def _chains(
        self, m: Module, c: int, bits: int, inside: list[Any], tile: list[list[Any]],
        offsets: Sequence[Any] = (),
    ) -> list[Any]:
        """Sums of each chain; ``tile[position][lane]`` becomes active with the swap.

        ``offsets``: what the first product of each chain is added to.
        """
        totals: list[Any] = [None] * self._lanes
        for j, position in enumerate(inside):
            active = Signal(_FIELD * self._lanes, name=f"active_{c}_{j}", reset_less=True)
            with m.If(position.swap):
                m.d.sync += active.eq(Cat(
                    Cat(value[:bits], Const(0, _FIELD - bits)) for value in tile[j]))
            for g in range(self._lanes):
                x = position.x.word_select(g, FIELD_X)[:formats.OPERAND_BITS].as_signed()
                weight = active.word_select(g, _FIELD)[:bits].as_signed()
                product = weight * x
                if offsets and not j:
                    product += offsets[g]
                product, = _register(m, f"product_{c}_{j}_{g}", [product])
                if j:
                    totals[g], = _register(m, f"chain_{c}_{j}_{g}", [product + totals[g]])
                else:
                    totals[g] = product
        return totals

    def _pair(
        self, m: Module, packing: Packing, number: int, inside: list[Any], tile: list[list[Any]]
    ) -> list[Any]:
        """Low and high sum of packed values, the sums ``number`` and the next one."""
        totals = self._chains(m, number, packing.width, inside, tile)
        parts = [packing.split(pair) for pair in totals]
        sums = []
        for side in (0, 1):
            terms = _register(m, f"part_{number + side}", [part[side] for part in parts])
            sums.append(self._tree(m, number + side, terms))
        return sums

    def _three(
        self, m: Module, c: int, inside: list[Any], shadow: list[list[list[Any]]],
        offsets: Sequence[Any], flags: tuple[Any, Any],
    ) -> list[Any]:
        """Lowest, highest and middle sum of columns ``c`` and ``c + 1``.

        ``flags``: whether they are of nibbles, of the rows whose chains are added, and later.
        """
        pairs = [list(zip(s[c], s[c + 1], strict=True)) for s in shadow]
        totals = self._chains(m, c, thirds.WIDTH, inside, [
            [thirds.join(low, high, position.nibbles) for low, high in pair]
            for position, pair in zip(inside, pairs, strict=True)
        ], offsets)
        middle, highest = (
            self._residues(m, f"{c}_{name}", inside, [
                [thirds.residues(*both)[at] for both in pair] for pair in pairs])
            for at, name in enumerate(("middle", "highest")))
        parts = map(thirds.fields, totals, middle, highest)
        sums = thirds.Fields(*(
            self._tree(m, f"{c}_{name}", list(terms)) for name, terms in zip(
                thirds.Fields._fields, zip(*parts, strict=True), strict=True)))
        gathered = thirds.gather(sums, self._lanes, flags[0])
        gathered = thirds.Gathered(*_register(m, f"gathered_{c}", gathered))
        return _register(m, f"separate_{c}", thirds.finish(gathered, flags[1]))

    def _residues(
        self, m: Module, name: str, inside: list[Any], tile: list[list[Any]]
    ) -> list[Any]:
        """The low bits of chains' sums, as many as ``tile`` has, when :meth:`_chains` has all."""
        bits = len(tile[0][0])
        sums: list[Any] = [Const(0, bits)] * self._lanes
        for j, position in enumerate(inside):
            active = Signal(bits * self._lanes, name=f"modulo_{name}_{j}", reset_less=True)
            with m.If(position.swap):
                m.d.sync += active.eq(Cat(tile[j]))
            weights: Any = active
            x: Any = Cat(position.x.word_select(g, FIELD_X)[:bits] for g in range(self._lanes))
            if j:
                # When the first product is in its register, and its residue in another.
                weights, x = _register(m, f"late_{name}_{j}", [active, x])
            for g in range(self._lanes):
                product = thirds.multiply(weights.word_select(g, bits), x.word_select(g, bits))
                sums[g], = _register(m, f"residue_{name}_{j}_{g}", [(product + sums[g])[:bits]])
        return sums

    def _tree(self, m: Module, c: int | str, terms: list[Any]) -> Any:
        """Sum with a register behind every level."""
        level = 0
        while len(terms) > 1:
            terms = _register(m, f"sum_{c}_{level}", [
                total(terms[at : at + _RADIX]) for at in range(0, len(terms), _RADIX)
            ])
            level += 1
        return terms[0]


def _levels(arch: ArchConfig) -> int:
    """Registered adder levels behind the chains."""
    terms, levels = arch.depth // chain(arch), 0
    while terms > 1:
        terms, levels = -(-terms // _RADIX), levels + 1
    return levels


def _register(m: Module, name: str, values: Sequence[Any]) -> list[Any]:
    """One register for each value, as wide as the value."""
    registers = []
    for index, value in enumerate(values):
        register = Signal(value.shape(), name=f"{name}_{index}", reset_less=True)
        m.d.sync += register.eq(value)
        registers.append(register)
    return registers


def _fit(value: Any, bits: int) -> Value:
    """A signed value cut or sign-extended to ``bits`` bits (it fits by construction)."""
    if len(value) >= bits:
        return value[:bits]
    return Cat(value, value[-1].replicate(bits - len(value)))
