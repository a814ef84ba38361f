"""What the parts of a core are called in Verilog."""

from __future__ import annotations

from .config import ArchConfig


def module_name(arch: ArchConfig) -> str:
    """Verilog name of the core: ``vitrify_`` and the architecture's name, made an identifier."""
    return "vitrify_" + "".join(c if c.isalnum() else "_" for c in arch.name)


def port_names(arch: ArchConfig) -> list[str]:
    """Names of the core's memory ports."""
    return ["m_axi"] if arch.ports == 1 else [f"m_axi{i}" for i in range(arch.ports)]
