"""Named architectures: one for simulation, one for reference, four for boards."""

from __future__ import annotations

from .config import ArchConfig, Dram, Part
from .errors import ConfigError
from .text import short

ECP5_85 = Part(name="LFE5U-85F", family="ecp5", luts=83_640, ffs=83_640, dsps=156, brams=208)
XC7Z020 = Part(name="xc7z020clg400-1", family="xc7", luts=53_200, ffs=106_400, dsps=220,
               brams=140)
XCK26 = Part(name="xck26-sfvc784-2LV-c", family="xcup", luts=117_120, ffs=234_240, dsps=1_248,
             brams=144, urams=64)
XCZU9EG = Part(name="xczu9eg-ffvb1156-2-e", family="xcup", luts=274_080, ffs=548_160,
               dsps=2_520, brams=912)

_PRESETS = (
    # 32 MACs: small enough for cocotb, every mechanism present (C < K, several lane groups).
    ArchConfig(
        name="nano", depth=8, width=4, lanes=2, max_rows=32, banks=6, bank_words=256,
        stat_rows=128, index_entries=128, bus_bytes=4, experts=8, stored_weights=True,
        weight_fifo_words=64, clock_mhz=80.0, part=ECP5_85, dram=Dram(latency=20, outstanding=4),
    ),
    # 1024 MACs on no particular part: the point of comparison.
    ArchConfig(
        name="reference", depth=32, width=32, lanes=16, max_rows=512, banks=8, bank_words=4096,
        stat_rows=2048, index_entries=2048, bus_bytes=16, requant_bits=24, experts=64,
        clock_mhz=300.0, part=XCZU9EG, dram=Dram(latency=100, outstanding=8),
    ),
    # 128 MACs: 16-bit SDRAM, open tools from source to bitstream.
    ArchConfig(
        name="ulx3s", depth=8, width=16, lanes=2, max_rows=256, banks=10, bank_words=4096,
        stat_rows=1024, index_entries=256, bus_bytes=2, weight_fifo_words=256, burst_beats=256,
        fabric_multipliers=True,
        clock_mhz=80.0, part=ECP5_85, dram=Dram(latency=100, outstanding=1),
    ),
    # 256 MACs: two products per DSP48E1, 64-bit HP port.
    ArchConfig(
        name="pynq-z2", depth=16, width=16, lanes=4, max_rows=256, banks=12, bank_words=2048,
        stat_rows=1024, index_entries=512, bus_bytes=8, requant_bits=24, packing=True,
        clock_mhz=150.0, part=XC7Z020, dram=Dram(latency=100, outstanding=8),
    ),
    # 2048 MACs: two products per DSP48E2, token memory in UltraRAM.
    ArchConfig(
        name="kv260", depth=32, width=64, lanes=32, max_rows=512, banks=8, bank_words=8192,
        stat_rows=2048, index_entries=2048, bus_bytes=32, requant_bits=24, experts=64,
        stored_weights=True, packing=True, fabric_multipliers=True,
        clock_mhz=300.0, part=XCK26, dram=Dram(latency=100, outstanding=8),
    ),
    # 4096 MACs: head dimension 64 in one pass, hence as many lanes as columns.
    ArchConfig(
        name="zcu102", depth=64, width=64, lanes=64, max_rows=512, banks=8, bank_words=4096,
        stat_rows=2048, index_entries=2048, bus_bytes=64, requant_bits=24, experts=64,
        stored_weights=True, packing=True,
        clock_mhz=300.0, part=XCZU9EG, dram=Dram(latency=100, outstanding=8),
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
