"""What a result was measured under, and whether that is what is built now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vitrify.arch.boards import built_for
from vitrify.arch.config import ArchConfig
from vitrify.arch.presets import preset

#: Settings of the core that change its cycles; a new contract alone does not.
_CORE = ("depth", "width", "lanes", "max_rows", "banks", "bank_words", "requant_bits", "experts",
         "stored_weights", "weight_fifo_words", "burst_beats")


def conditions(arch: ArchConfig) -> dict[str, Any]:
    """Board, core, clock, memory ports and memory of an architecture."""
    found = built_for(arch)
    return {
        "board": found.name if found else None,
        "core": {name: getattr(arch, name) for name in _CORE}
        # As before this option was there, in results of cores without it.
        | ({"tile_quads": True} if arch.tile_quads else {}),
        "clock_mhz": arch.clock_mhz,
        "ports": arch.ports,
        "port_bytes": arch.port_bytes,
        "outstanding": arch.outstanding,
        "memory": found.memory.name if found else "none in particular",
        "dram": asdict(arch.dram),
    }


def current(result: dict[str, Any]) -> bool:
    """Whether a result is of the core, clock and memory that its preset has today."""
    return result.get("conditions") == conditions(preset(result["arch"]))
