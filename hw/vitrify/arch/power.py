"""Power of a core, by what published accelerators of its family take.

No core of ours has been on a board, hence nothing here is measured.  Works that were print watts
beside LUTs and clock.  Watts a LUT and megahertz of these differ by three times, since methods do
(chip or board, meter or vendor's tool) and designs switch more or less; the model is their
geometric mean, its range from the lowest to the highest.  Energies of single operations, as they
are published for chips, leave out what takes most of an FPGA's power: wires, clocks, registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from .config import ArchConfig
from .estimate import estimate


def _size(luts: float, clock_mhz: float) -> float:
    """So many times 1,000 LUTs at 100 MHz."""
    return luts / 1e3 * clock_mhz / 100


@dataclass(frozen=True)
class Published:
    """An accelerator for vision models: what it took, everything that its source counts."""

    work: str
    source: str
    part: str
    luts: int
    clock_mhz: float
    watts: float

    @property
    def density(self) -> float:
        """Watts for 1,000 LUTs at 100 MHz."""
        return self.watts / _size(self.luts, self.clock_mhz)


#: By family of parts.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "xcup": (
        Published("CoQMoE", "tables of its paper", "ZCU102", 156_100, 300.0, 9.83),
        Published("UbiMoE, M³ViT", "arXiv 2502.05602, Table II", "ZCU102", 123_400, 300.0, 11.5),
        Published("Huang et al., TCAS-I 2023", "arXiv 2411.03697, Table 7", "ZCU102", 144_500,
                  300.0, 29.6),
        Published("Auto-ViT-Acc", "arXiv 2411.03697, Table 7", "ZCU102", 185_000, 150.0, 9.6),
        Published("HPTA", "arXiv 2411.03697, Table 7", "ZCU102", 209_900, 200.0, 20.0),
        Published("AMD DPU B3136 in the smart camera, AMD's estimate",
                  "Kria KV260 application documents, 2021.1", "K26", 77_884, 300.0, 7.9),
    ),
}


@dataclass(frozen=True)
class Power:
    """Watts of a core at work, and how many designs say so."""

    watts: float
    least: float
    most: float
    designs: int


def power(arch: ArchConfig) -> Power | None:
    """What a core would take at its clock while it works.

    ``None`` for families of which no design is published with LUTs, clock and watts.
    """
    known = PUBLISHED.get(arch.part.family)
    return by_density(known, estimate(arch)["lut"]["used"], arch.clock_mhz) if known else None


def by_density(known: tuple[Published, ...], luts: float, clock_mhz: float) -> Power:
    """Watts of so many LUTs at a clock, if they take what the ``known`` designs do."""
    densities = [design.density for design in known]
    size, mean = _size(luts, clock_mhz), prod(densities) ** (1 / len(densities))
    return Power(mean * size, min(densities) * size, max(densities) * size, len(known))
