"""The stationary tile: shadow bytes that the loader fills, active bytes that multiply."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value, signed

from vitrify.arch.config import ArchConfig
from vitrify.rtl.interfaces import tile_write

#: Cycles from an offered tile write to the shadow byte.
TILE_LATENCY = 3


def shadow_tile(m: Module, arch: ArchConfig, tile: Any) -> list[Signal]:
    """Add the shadow registers: C signals of K bytes.

    ``tile`` is a ``pipe(tile_write)``; a write shows :data:`TILE_LATENCY` cycles after it was
    offered.  A write along the depth replaces one column, a write along the columns replaces one
    byte of K (or all C) columns; both are one 2:1 multiplexer a bit.
    """
    k, c = arch.depth, arch.width
    groups = max(1, c // k)
    write = Signal(tile_write(arch), name="tile_write", reset_less=True)
    valid = Signal(name="tile_valid")
    m.d.sync += [write.eq(tile.p), valid.eq(tile.valid)]

    # One decoded enable for each column, and one mask of bytes for each group of columns.
    is_row = valid & ~write.columns
    column_on = Signal(c, name="tile_column")
    mask = [Signal(8 * k, name=f"tile_mask_{g}") for g in range(groups)]
    payload = Signal(8 * k, name="tile_data", reset_less=True)
    m.d.sync += [
        payload.eq(write.data),
        column_on.eq(Cat(is_row & (write.index == i) for i in range(c))),
        *(mask[g].eq(Cat(
            (valid & write.columns & (write.group == g) & (write.index == i)).replicate(8)
            for i in range(k)
        )) for g in range(groups)),
    ]
    shadow = []
    for i in range(c):
        byte = payload.word_select(i % k, 8)
        old = Signal(8 * k, name=f"shadow_{i}", reset_less=True)
        on = mask[i // k]
        m.d.sync += old.eq(Mux(column_on[i], payload, (old & ~on) | (byte.replicate(k) & on)))
        shadow.append(old)
    return shadow


def active_bytes(m: Module, arch: ArchConfig, shadow: list[Signal], swap: Value) -> list[Signal]:
    """Add the active registers, copied from the shadow in a cycle with ``swap``."""
    active = [Signal(8 * arch.depth, name=f"active_{i}", reset_less=True)
              for i in range(arch.width)]
    with m.If(swap):
        m.d.sync += [a.eq(s) for a, s in zip(active, shadow, strict=True)]
    return active


def byte(word: Value, index: int) -> Value:
    """Signed byte ``index`` of a word."""
    return word.word_select(index, 8).as_signed()


def active_pairs(
    m: Module, arch: ArchConfig, shadow: list[Signal], swap: Value, shift: int
) -> list[list[Signal]]:
    """Active registers of packed pairs: ``[C/2][K]`` values ``(w1 << shift) + w0``."""
    pairs = []
    with m.If(swap):
        for p in range(arch.width // 2):
            row = [Signal(signed(shift + 8), name=f"pair_{p}_{i}", reset_less=True)
                   for i in range(arch.depth)]
            low, high = shadow[2 * p], shadow[2 * p + 1]
            m.d.sync += [
                r.eq((byte(high, i) << shift) + byte(low, i)) for i, r in enumerate(row)
            ]
            pairs.append(row)
    return pairs
