"""LUTs and flip-flops of a core, from a model fitted to what Yosys made of others.

``python -m bench.area`` holds the fitted cores, fits again and says how far off the model is for a
core that it has not seen; a test compares.  ECP5: LUT4 equivalents; AMD: LUT6.

The cores that it is fitted to predate `patterns`, `addends`, `products`, `row_sums` and `nibbles`:
the model leaves out what these add, and its error does not cover it.  On `kv260` the first four
were measured at 4,300 LUTs, 5 % of the core (docs/resources.md).
"""

from __future__ import annotations

from .config import ArchConfig

#: What the model counts: itself, multiply-accumulates a cycle, lanes that multiply in LUTs, and
#: whether LUTs have four inputs.
FEATURES = ("core", "multiply-accumulates", "fabric lanes", "four inputs")
#: Coefficients of :data:`FEATURES`.
COEFFICIENTS = {
    "luts": (15886.11, 26.74, 187.64, 5907.02),
    "ffs": (20171.75, 34.81, 197.48, 4373.75),
}
#: Largest error of a core that was left out of the fit, rounded up; the fit has six cores.
ERROR = {"luts": 0.15, "ffs": 0.05}
#: LUTs and flip-flops of a bit of the bus, in the parts between the core and each of several ports
#: (FIFOs in distributed RAM; gathering, sending and output registers), counted.
_PORT = {"luts": 1.7, "ffs": 4.0}


def features(arch: ArchConfig) -> tuple[float, ...]:
    """:data:`FEATURES` of a core."""
    fabric = 2 * arch.depth + arch.lanes if arch.fabric_multipliers else 0
    return (1, arch.macs, fabric, arch.part.family == "ecp5")


def area(arch: ArchConfig) -> dict[str, int]:
    """``luts`` and ``ffs`` of a core."""
    counted = features(arch)
    ports = 8 * arch.bus_bytes * arch.ports if arch.ports > 1 else 0
    return {
        kind: round(sum(c * x for c, x in zip(weights, counted, strict=True))
                    + ports * _PORT[kind])
        for kind, weights in COEFFICIENTS.items()
    }
