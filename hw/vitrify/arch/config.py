"""ArchConfig: every choice that shapes a core, validated, with the derived sizes beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from . import formats, isa
from .combinations import objection
from .dram import Dram
from .errors import ConfigError
from .text import check_name, short
from .values import build, integer, whole

#: Changes whenever older programs stop running on newer cores, or newer ones on older cores.  What
#: some cores have only changes their hash (:attr:`ArchConfig.hash`).
CONTRACT_VERSION = 7
#: Fastest clock that reports believe in.
MAX_CLOCK_MHZ = 10_000
#: Beats of a burst on one of several AXI ports: what AXI3 takes.
STRIPE_BEATS = 16
#: An AXI burst stays within a page of this size (AMBA AXI, A3.4.1).
PAGE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Part:
    """Capacity of an FPGA part, in its own units (zero: the part has none)."""

    name: str = "none"
    #: Yosys flow: ``ecp5``, ``xcup`` (UltraScale+), ``xc7`` (7 series) or ``none``.
    family: str = "none"
    luts: int = 0
    ffs: int = 0
    #: Multipliers: MULT18X18D, DSP48E1 or DSP48E2.
    dsps: int = 0
    #: Block RAMs: 18-kbit EBR (ECP5) or 36-kbit BRAM (AMD).
    brams: int = 0
    urams: int = 0

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a part")
        check_name(self.family, "the family of a part")
        for name in ("luts", "ffs", "dsps", "brams", "urams"):
            integer(f"part {self.name!r}", name, getattr(self, name), 0, 1 << 30)


#: Attributes of an architecture that can do without; programs that use them are refused then.
MECHANISMS = ("stored_weights", "patterns", "addends", "products", "row_sums", "nibbles",
              "trellis")


@dataclass(frozen=True, kw_only=True)
class ArchConfig:
    """One core.

    Attributes that change what a program means enter :attr:`hash`; those that only change how
    the core is built (packing, multiplier style, clock, part, DRAM model) do not.
    """

    name: str
    #: K: depth of the dot products, and bytes of a token-memory word.  Power of two, 4 … 128.
    depth: int
    #: C: dot products side by side (output channels of a tile).  Power of two, 2 … 256.
    width: int
    #: E: epilogue lanes.  Power of two; E <= K and E <= C.
    lanes: int
    #: Rows that stream past one tile at most (accumulator rows).  Power of two.
    max_rows: int
    #: Token-memory banks, one read and one write a cycle each.  Even: pairs hold int16.
    banks: int
    #: Words of K bytes in one bank.  Power of two.
    bank_words: int
    #: Entries of the row statistics memory (LayerNorm rows and softmax rows).  Power of two.
    stat_rows: int
    #: Entries of the row-index memory.  Power of two.
    index_entries: int
    #: Bytes of a DRAM bus beat, all ports together.  Power of two, 1 … K.
    bus_bytes: int
    #: Signed width of the requantisation multiplier's data port (18: one MULT18X18D;
    #: 24: one DSP48).
    requant_bits: int = 18
    #: Experts that ROUTE chooses from at most, 0 … 64; 0 leaves the router out.
    experts: int = 0
    #: Tiles may come from weights that a LOAD has put into the token memory, two columns a cycle.
    stored_weights: bool = False
    #: PATTERN: taps of a map, words by c tile, maxima, old values from anywhere.
    patterns: bool = False
    #: ADD8: int8 values are added before the only rounding.
    addends: bool = False
    #: PRODUCT: the operand is the product of two tensors.
    products: bool = False
    #: Statistics RMS and SUM, and rows divided by any sum.
    row_sums: bool = False
    #: Weights of the stream may have 4 bits; with ``stored_weights`` two columns a cycle.
    nibbles: bool = False
    #: Weights of 4 bits are codes of :mod:`vitrify.arch.trellis`, where the array multiplies bytes
    #: (:attr:`trellis_codes`).
    trellis: bool = False
    #: Tiles of C columns that a pass computes with weights of 4 bits: 1, or 2 with two products
    #: on one multiplier.
    nibble_tiles: int = 1
    #: With ``packing``: a pair of columns is three columns with weights of 4 bits, and a c tile of
    #: such has :attr:`nibble_width` columns.
    nibble_thirds: bool = False
    #: Words of K bytes in the weight prefetch FIFO.  Power of two.
    weight_fifo_words: int = 512
    #: Longest DRAM burst in beats.  Power of two, 1 … 256; AXI3 ports (Zynq-7000) take 16.
    #: Memories that serve one burst at a time want long ones.
    burst_beats: int = 16
    #: DRAM bursts in flight at once in each direction: with ``burst_beats`` beats each they cover
    #: the latency of the memory.  1 … 64.
    outstanding: int = 8
    #: AXI ports that share the bus: 1, 2, 4 or 8, each ``bus_bytes / ports`` wide.  Consecutive
    #: stripes of :attr:`stripe_bytes` lie behind consecutive ports.  Never changes results.
    ports: int = 1
    #: Two stationary bytes share one multiplier (DSP48 families).  Never changes results.
    packing: bool = False
    #: Many tiles of stored weights wait, and are written by four columns.  Never changes results.
    tile_quads: bool = False
    #: LayerNorm lanes and gate weights multiply in LUTs instead of DSPs.  Never changes results.
    fabric_multipliers: bool = False
    #: Clock the part is expected to reach; reports turn cycles into time with it.
    clock_mhz: float = 100.0
    part: Part = field(default_factory=Part)
    dram: Dram = field(default_factory=Dram)

    def __post_init__(self) -> None:
        check_name(self.name, "the name of an arch")
        what = f"arch {self.name!r}"

        def power(name: str, low: int, high: int) -> None:
            value = getattr(self, name)
            if whole(what, name, value) & (value - 1) or not low <= value <= high:
                raise ConfigError(
                    f"{what}: {name} must be a power of two from {low} to {high}, "
                    f"not {short(value)}"
                )

        power("depth", 4, 128)
        power("width", 2, 256)
        power("lanes", 1, min(self.depth, self.width))
        power("max_rows", 16, 4096)
        power("bank_words", 16, 1 << 16)
        power("stat_rows", 16, 1 << 14)
        power("index_entries", 16, 1 << 14)
        power("bus_bytes", 1, self.depth)
        power("weight_fifo_words", 16, 1 << 14)
        power("burst_beats", 1, 256)
        power("ports", 1, min(8, self.bus_bytes))
        if whole(what, "banks", self.banks) not in range(2, 65, 2):
            raise ConfigError(
                f"{what}: banks must be an even number from 2 to 64, not {short(self.banks)}"
            )
        integer(what, "requant_bits", self.requant_bits, 16, 27)
        integer(what, "experts", self.experts, 0, formats.MAX_EXPERTS)
        integer(what, "outstanding", self.outstanding, 1, 64)
        integer(what, "nibble_tiles", self.nibble_tiles, 1, 2)
        for name in (*MECHANISMS, "nibble_thirds", "packing", "tile_quads", "fabric_multipliers"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"{what}: {name} must be true or false, not {short(getattr(self, name))}"
                )
        clock = self.clock_mhz
        if (
            not isinstance(clock, int | float) or isinstance(clock, bool)
            or not 0 < clock <= MAX_CLOCK_MHZ
        ):
            raise ConfigError(
                f"{what}: clock_mhz must be a number above 0 and at most {MAX_CLOCK_MHZ}, "
                f"not {short(clock)}"
            )
        for name, kind in (("part", Part), ("dram", Dram)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(
                    f"{what}: {name} must hold settings, not {short(getattr(self, name))}"
                )
        objects = objection(self)
        if objects:
            raise ConfigError(f"{what}: {objects}")
        if self.token_words > 1 << 20:
            raise ConfigError(
                f"{what}: {self.banks} banks of {self.bank_words} words exceed the "
                f"2**20 words that an instruction can address; make the banks fewer or smaller"
            )

    # Derived sizes -----------------------------------------------------------------------
    @property
    def macs(self) -> int:
        """C·K: multiply-accumulates a cycle."""
        return self.depth * self.width

    @property
    def token_words(self) -> int:
        """Words of K bytes in the token memory."""
        return self.banks * self.bank_words

    @property
    def token_bytes(self) -> int:
        """Bytes of the token memory."""
        return self.token_words * self.depth

    @property
    def nibble_width(self) -> int:
        """Columns of a c tile whose weights have 4 bits."""
        return self.sums(self.width) if self.nibble_thirds else self.width

    def tile_width(self, nibbles: int) -> int:
        """Columns of a c tile, given whether a MATMUL's weights are ``nibbles``."""
        return self.nibble_width if nibbles else self.width

    @property
    def groups(self) -> int:
        """Lane groups in a tile: cycles that the epilogue spends on a row."""
        return self.width // self.lanes

    @property
    def most_groups(self) -> int:
        """Lane groups in the widest tile."""
        return self.nibble_width // self.lanes

    @property
    def stored_nibbles(self) -> bool:
        """Whether tiles in the token memory may have weights of 4 bits."""
        return self.stored_weights and self.nibble_thirds

    def tile_pairs(self, nibbles: int) -> int:
        """Pair words of a tile in the token memory, of two columns each; of ``nibbles`` four."""
        return self.tile_width(nibbles) // (4 if nibbles else 2)

    @property
    def tile_buffer(self) -> int:
        """Words of tiles that wait in front of the array: a tile, or what block RAMs have."""
        return max(self.streamed_ahead, 512 * self.tile_quads)

    @property
    def tile_bits(self) -> int:
        """Bits of a word of tiles that wait: K bytes, or those of two or four columns."""
        return 8 * self.depth * (1 + self.stored_weights + 2 * self.tile_quads)

    @property
    def tiles_in_blocks(self) -> bool:
        """Whether they wait in block RAM where LUTs would do: 64 words of 512 bits and more.

        Where UltraRAM is the token memory; sums in thirds need the blocks.
        """
        large = self.tile_bits >= 512 and self.tile_buffer >= 64
        return large and self.part.urams > 0 and not self.nibble_thirds

    @property
    def streamed_ahead(self) -> int:
        """Words that wait where one of the stream is taken: more would keep images off the bus."""
        return max(self.width, self.depth, 32)

    @property
    def param_slots(self) -> int:
        """C tiles whose parameters the epilogue keeps, the one at work included."""
        return 8 if self.tile_quads else 4

    @property
    def port_bytes(self) -> int:
        """Bytes of a beat of one AXI port."""
        return self.bus_bytes // self.ports

    @property
    def dram_bytes(self) -> float:
        """Bytes a cycle that bus and DRAM sustain: what a roofline divides by."""
        if not self.dram.bandwidth:
            return self.bus_bytes
        return min(self.bus_bytes, self.dram.sustained / (self.clock_mhz * 1e6))

    @property
    def stripe_bytes(self) -> int:
        """With several ports: bytes side by side in DRAM behind one of them, and the longest burst.

        No more than AXI3 takes.
        """
        return min(STRIPE_BEATS, PAGE_BYTES // self.port_bytes) * self.port_bytes

    @property
    def stripe_beats(self) -> int:
        """Beats of the whole bus in a stripe."""
        return max(1, self.stripe_bytes // self.bus_bytes)

    @property
    def port_beats(self) -> int:
        """Longest burst on an AXI port, in beats of the port."""
        return self.burst_beats if self.ports == 1 else self.stripe_bytes // self.port_bytes

    @property
    def fifo_words(self) -> dict[str, int]:
        """Words that each client of the bus buffers.

        Eight instructions; loads that cover a latency of 240 cycles at full rate, and two bursts
        at least; of the stores two bursts and no more than 256 beats, because results are short.
        """
        beats = self.depth // self.bus_bytes
        words = {
            "instructions": 8 * isa.INSTRUCTION_BYTES // self.depth,
            "weights": self.weight_fifo_words,
            "loads": max(256, 2 * self.burst_beats) // beats,
            "stores": min(256, 2 * self.burst_beats) // beats,
        }
        return {name: max(count, 4) for name, count in words.items()}

    @property
    def sum_columns(self) -> int:
        """Columns that share an accumulator memory: few enough for block RAMs side by side."""
        return min(16, self.width)

    @property
    def sum_bits(self) -> int:
        """Bits of the widest of the partial sums of a column."""
        return formats.ACC_BITS if self.nibble_tiles == 1 else formats.HALF_ACC_BITS

    @property
    def stored_sums(self) -> tuple[int, ...]:
        """Bits of the partial sums side by side in an accumulator memory."""
        if self.nibble_thirds:
            part, whole = formats.HALF_ACC_BITS, formats.ACC_BITS
            return (part, whole, part) * (self.sum_columns // 2)
        return (self.sum_bits,) * self.sums(self.sum_columns)

    @property
    def trellis_codes(self) -> bool:
        """Whether weights of 4 bits are codes of :mod:`vitrify.arch.trellis`, not integers."""
        return self.trellis and self.nibbles and not self.sees_nibbles

    @property
    def sees_nibbles(self) -> bool:
        """Whether the array, and not the loader alone, knows weights of 4 bits."""
        return self.nibble_tiles > 1 or self.nibble_thirds

    def sums(self, columns: int) -> int:
        """Sums that the array makes of so many columns, whatever their weights are."""
        return columns * 3 // 2 if self.nibble_thirds else columns * self.nibble_tiles

    @property
    def param_words(self) -> int:
        """Stream words that hold bias and multiplier of one lane group."""
        return -(-6 * self.lanes // self.depth)

    @property
    def table_words(self) -> int:
        """Stream words of one activation table."""
        return formats.TABLE_ENTRIES // self.depth

    @property
    def max_dim_words(self) -> int:
        """Words of the longest row: entries of the LayerNorm gain memory."""
        return formats.MAX_DEPTH // self.depth

    # Identity ----------------------------------------------------------------------------
    _NOT_HASHED = ("name", "packing", "tile_quads", "fabric_multipliers", "clock_mhz", "part",
                   "dram", "weight_fifo_words", "burst_beats", "outstanding", "ports")

    @property
    def hash(self) -> int:
        """32-bit identity of the contract: equal hashes run each other's programs."""
        choices = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in self._NOT_HASHED
        }
        if self.nibble_tiles == 1:
            # As before this field existed: programs of then run on such a core.
            del choices["nibble_tiles"]
        del choices["trellis"]
        if not self.nibble_thirds:
            del choices["nibble_thirds"]
        if self.trellis_codes:
            choices["trellis_codes"] = True
        if self.stored_nibbles:
            choices["stored_nibbles"] = True
        if self.experts:
            # A router of before a ROUTE could join another would pass over the field that says so.
            choices["joins"] = True
        text = json.dumps([CONTRACT_VERSION, choices], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ArchConfig:
        """Build from plain data; unknown or missing keys are a :class:`ConfigError`."""
        if not isinstance(data, dict):
            raise ConfigError(f"an arch description must be a mapping, not {short(data)}")
        values = dict(data)
        for key, kind in (("part", Part), ("dram", Dram)):
            if isinstance(values.get(key), dict):
                values[key] = build(kind, values[key], key)
        return build(cls, values, "arch")
