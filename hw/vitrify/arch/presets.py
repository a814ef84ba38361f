"""Named architectures: one for simulation, one for reference, eight for boards.

Part, clock, memory ports and memory are those of :mod:`~vitrify.arch.boards`.
"""

from __future__ import annotations

from dataclasses import replace

from .boards import BOARDS, ECP5_85
from .config import ArchConfig
from .dram import Dram
from .errors import ConfigError
from .text import short

#: Convolutions, windows, gates and every attention.
_EVERYTHING = {
    "patterns": True, "addends": True, "products": True, "row_sums": True, "nibbles": True,
    "trellis": True,
}

# 2048 MACs: two products per DSP48E2, token memory in UltraRAM, two 128-bit HP ports.  Gates
# and LayerNorm take the multipliers that the array leaves: LUTs are scarcer.
_KV260 = ArchConfig(
    name="kv260", depth=32, width=64, lanes=32, max_rows=512, banks=8, bank_words=8192,
    stat_rows=8192, index_entries=8192, requant_bits=24, experts=64,
    stored_weights=True, packing=True, outstanding=16, **_EVERYTHING,
    **BOARDS["kv260"].settings(ports=2),
)

_PRESETS = (
    # 32 MACs: small enough for cocotb, every mechanism present (C < K, several lane groups).
    ArchConfig(
        name="nano", depth=8, width=4, lanes=2, max_rows=32, banks=6, bank_words=256,
        stat_rows=128, index_entries=128, bus_bytes=4, experts=8, stored_weights=True,
        **_EVERYTHING, weight_fifo_words=64, clock_mhz=80.0, part=ECP5_85,
        dram=Dram(latency=20, outstanding=4),
    ),
    # 1024 MACs behind one port of the ZCU102: the point of comparison.  As many lanes as columns,
    # so that the last c tile leaves as fast as it comes.
    ArchConfig(
        name="reference", depth=32, width=32, lanes=32, max_rows=512, banks=8, bank_words=4096,
        stat_rows=2048, index_entries=2048, requant_bits=24, experts=64,
        stored_weights=True, **_EVERYTHING, **BOARDS["zcu102"].settings(),
    ),
    # 128 MACs: 16-bit SDRAM, open tools from source to bitstream.
    ArchConfig(
        name="ulx3s", depth=8, width=16, lanes=2, max_rows=256, banks=10, bank_words=4096,
        stat_rows=1024, index_entries=256, nibbles=True, weight_fifo_words=256, burst_beats=256,
        **BOARDS["ulx3s"].settings(),
    ),
    # 256 MACs where weights have 4 bits: twice the lanes, a block RAM for the halves of sums in the
    # place of two banks.
    ArchConfig(
        name="ulx3s-w4", depth=8, width=16, lanes=8, max_rows=256, banks=8, bank_words=4096,
        stat_rows=1024, index_entries=256, nibbles=True, nibble_tiles=2, stored_weights=True,
        weight_fifo_words=1024, burst_beats=256, fabric_multipliers=True,
        **BOARDS["ulx3s"].settings(),
    ),
    # 32 MACs: 32-bit SDRAM, room for wires.
    ArchConfig(
        name="colorlight-i9", depth=4, width=8, lanes=2, max_rows=128, banks=8, bank_words=2048,
        stat_rows=512, index_entries=64, weight_fifo_words=256, burst_beats=256,
        **BOARDS["colorlight-i9"].settings(),
    ),
    # 32 MACs: half of that memory's width, hence weights of 4 bits.
    ArchConfig(
        name="schoko", depth=4, width=8, lanes=2, max_rows=128, banks=8, bank_words=2048,
        stat_rows=512, index_entries=64, nibbles=True, weight_fifo_words=256, burst_beats=256,
        **BOARDS["schoko"].settings(),
    ),
    # 256 MACs: two products per DSP48E1, one 64-bit HP port.
    ArchConfig(
        name="pynq-z2", depth=16, width=16, lanes=4, max_rows=256, banks=12, bank_words=2048,
        stat_rows=1024, index_entries=512, requant_bits=24, packing=True, **_EVERYTHING,
        **BOARDS["pynq-z2"].settings(),
    ),
    _KV260,
    # 3072 MACs where weights have 4 bits: three products per DSP48E2.
    replace(_KV260, name="kv260-w4", nibble_thirds=True, trellis=False),
    # 4096 MACs: head dimension 64 in one pass, hence as many lanes as columns; four 128-bit HP
    # ports.
    ArchConfig(
        name="zcu102", depth=64, width=64, lanes=64, max_rows=512, banks=8, bank_words=4096,
        stat_rows=8192, index_entries=8192, requant_bits=24, experts=64,
        stored_weights=True, tile_quads=True, packing=True, outstanding=16, **_EVERYTHING,
        **BOARDS["zcu102"].settings(ports=4),
    ),
)

PRESETS: dict[str, ArchConfig] = {preset.name: preset for preset in _PRESETS}


def preset(name: str) -> ArchConfig:
    """The preset called ``name``.

    Raises
    ------
    ConfigError
        If there is none; the message lists the names.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(
            f"no preset is called {short(name)}; the presets are {', '.join(PRESETS)} "
            f"(or give a YAML file)"
        )
    return PRESETS[name]
