"""Architectures at the edges of what ArchConfig allows, drawn with a seed."""

from __future__ import annotations

import random

from vitrify.arch import formats
from vitrify.arch.config import ArchConfig, Part
from vitrify.arch.errors import ConfigError
from vitrify.arch.presets import PRESETS

_PARTS = [Part(), *{arch.part.name: arch.part for arch in PRESETS.values()}.values()]


def _power(random_: random.Random, low: int, high: int) -> int:
    """A power of two; every other time one of the ends."""
    if random_.random() < 0.5:
        return random_.choice((low, high))
    return 1 << random_.randint(low.bit_length() - 1, high.bit_length() - 1)


def draw(random_: random.Random, *, most_macs: int, most_words: int) -> ArchConfig:
    """A valid architecture.

    Parameters
    ----------
    random_ : the generator
    most_macs : of depth times width
    most_words : of the token memory
    """
    while True:
        depth, width = _power(random_, 4, 128), _power(random_, 2, 256)
        nibbles, packing = random_.random() < 0.5, random_.random() < 0.5
        stored = random_.random() < 0.5
        banks = random_.choice((2, 4, 6, 10, 62, 64, 2 * random_.randint(1, 32)))
        try:
            arch = ArchConfig(
                name="corner", depth=depth, width=width,
                lanes=_power(random_, 1, min(depth, width)),
                max_rows=_power(random_, 16, 4096), banks=banks,
                bank_words=_power(random_, 16, 1 << 16), stat_rows=_power(random_, 16, 1 << 14),
                index_entries=_power(random_, 16, 1 << 14), bus_bytes=_power(random_, 1, depth),
                requant_bits=random_.choice((16, 18, 24, 27)),
                experts=random_.choice((0, 1, 2, 3, 5, 63, formats.MAX_EXPERTS)),
                stored_weights=stored, nibbles=nibbles,
                nibble_tiles=random_.choice((1, 2)) if nibbles and not packing else 1,
                weight_fifo_words=_power(random_, 16, 1 << 14),
                burst_beats=_power(random_, 1, 256), outstanding=random_.choice((1, 2, 3, 8, 64)),
                nibble_thirds=nibbles and packing and random_.random() < 0.5,
                tile_quads=stored and random_.random() < 0.5,
                packing=packing, fabric_multipliers=random_.random() < 0.5,
                part=random_.choice(_PARTS),
            )
        except ConfigError:
            continue
        if arch.macs <= most_macs and arch.token_words <= most_words:
            return arch
