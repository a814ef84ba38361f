"""LUTs and flip-flops of a core, unit by unit, from a model fitted to what Yosys made of others.

``python -m bench.area`` synthesises the cores, fits again and says how far off the model is for
cores that the fit has not seen; a test compares.  ECP5: LUT4 equivalents; AMD: LUT6.
"""

from __future__ import annotations

from collections.abc import Mapping

from .config import ArchConfig

#: Of each unit (:mod:`vitrify.rtl.core`) what one of each of its :func:`features` takes, those that
#: take nothing left out, and how much more an ECP5 takes.  All fitted cores with ``row sums`` have
#: experts, and the other way round: where both count, each has half of what the two take.
COEFFICIENTS: Mapping[str, Mapping[str, tuple[Mapping[str, float], float]]] = {
    "luts": {
        "matrix": ({"macs": 10.0, "packed macs": 1.12, "macs of pairs": 0.5, "tree": 8.06}, 3.122),
        "accumulator": ({"width": 31.03}, 4.565),
        "transform": ({
            "core": 37.0, "depth": 202.0, "fabric depth": 328.0, "depth of products": 20.75,
        }, 1.423),
        "epilogue": ({
            "core": 1921.0, "patterns": 461.2, "row sums": 111.1, "experts": 111.1, "width": 12.36,
            "lanes": 349.69, "lanes of addends": 86.6, "fabric gates": 348.5,
        }, 1.240),
        "tokens": ({"core": 160.79, "bytes of banks": 22.51}, 1.319),
        "fetch": ({"core": 646.79, "patterns": 717.21, "row sums": 1.1, "experts": 1.1}, 1.473),
        "loader": ({
            "core": 345.14, "depth": 19.36, "depth of pairs": 20.11, "depth of nibbles": 13.87,
        }, 1.742),
        "mover": ({"core": 583.0, "depth": 29.5}, 1.621),
        "bus": ({"core": 838.0, "depth": 58.0}, 1.672),
        "controller": ({"core": 2982.92, "patterns": 597.08, "experts": 266.08}, 1.587),
        "router": ({"experts": 2224.0}, 1.000),
        "indices": ({"experts": 26.0}, 0.000),
        "stats": ({}, 1.000),
        "between": ({"experts": 21.0}, 0.000),
    },
    "ffs": {
        "matrix": ({
            "depth": 52.74, "macs": 16.69, "packed macs": 6.19, "macs of pairs": 5.56,
        }, 2.907),
        "accumulator": ({"width": 126.32}, 1.350),
        "transform": ({
            "core": 112.0, "depth": 237.0, "fabric depth": 267.0, "depth of products": 0.25,
        }, 2.019),
        "epilogue": ({
            "core": 2076.79, "patterns": 549.1, "row sums": 274.05, "experts": 274.05,
            "depth": 51.97, "lanes": 314.11, "lanes of addends": 31.05, "fabric gates": 261.5,
        }, 2.154),
        "tokens": ({"core": 27.3, "bytes of banks": 21.72}, 1.208),
        "fetch": ({"core": 899.19, "patterns": 701.81}, 1.284),
        "loader": ({
            "core": 356.79, "depth": 41.65, "depth of pairs": 36.15, "depth of nibbles": 18.2,
        }, 0.941),
        "mover": ({"core": 741.0, "depth": 49.5}, 1.002),
        "bus": ({"core": 955.0, "depth": 97.25}, 0.982),
        "controller": ({"core": 4204.33, "patterns": 626.67, "experts": 270.67}, 1.000),
        "router": ({"experts": 1980.0}, 1.000),
        "indices": ({}, 1.000),
        "stats": ({}, 1.000),
        "between": ({"core": 11.0, "experts": 1.0}, 1.000),
    },
}
#: LUTs and flip-flops of a bit of the bus, in the parts between the core and each of several ports
#: (FIFOs in distributed RAM; gathering, sending and output registers), counted.
_PORT = {"luts": 1.7, "ffs": 4.0}
#: What two ``nibble_tiles`` add to a multiplier, a column, a lane; counted on `nano` for an ECP5.
_NIBBLE_TILES = {"luts": (39, 120, 98), "ffs": (20, 121, 153)}
#: What ``nibble_thirds`` add to a multiplication; counted on `kv260` and `kv260-w4`, whole cores.
_NIBBLE_THIRDS = {"luts": 3.6, "ffs": 15.0}
#: What ``trellis`` adds to a byte of depth, LUTs of 6 inputs and, on ECP5, of 4; counted on `kv260`
#: and `ulx3s`, loaders alone.
_TRELLIS = {"luts": (21.0, 51.0), "ffs": (2.0, 2.0)}
#: What a bit of the buffer of tiles saves where it is block RAM, counted on `kv260`'s loader.
_BLOCK_BUFFER = {"luts": 1.15, "ffs": 1.0}
#: What ``tile_quads`` add to a byte of depth (the way to the array) and to a multiplication (copies
#: in front of it), counted in the source; the buffer is block RAM.
_TILE_QUADS = {"luts": (16, 0), "ffs": (96, 2)}
#: What a modelled number may be off by: not less than the largest error of the few cores that the
#: fit has not seen.
ERROR = {"luts": 0.08, "ffs": 0.26}


def features(arch: ArchConfig) -> dict[str, float]:
    """What the sizes of units go with."""
    depth, width, lanes, experts = arch.depth, arch.width, arch.lanes, arch.experts > 0
    return {
        "core": 1, "patterns": arch.patterns, "products": arch.products,
        "row sums": arch.row_sums, "experts": experts,
        "depth": depth, "fabric depth": depth * arch.fabric_multipliers,
        "depth of products": depth * arch.products, "depth of pairs": depth * arch.stored_weights,
        "depth of nibbles": depth * arch.nibbles,
        "width": width, "lanes": lanes, "lanes of addends": lanes * arch.addends,
        "fabric gates": lanes * experts * arch.fabric_multipliers,
        "macs": arch.macs, "packed macs": arch.macs * arch.packing,
        "macs of pairs": arch.macs * arch.stored_weights,
        # Adders behind the chains of four products each.
        "tree": width * (depth // 4 - 1),
        "bytes of banks": arch.banks * depth,
    }


def unit_area(arch: ArchConfig, coefficients: Mapping[str, float], four_inputs: float) -> float:
    """LUTs or flip-flops of a unit, of which an ECP5 takes ``four_inputs`` times as many."""
    counted = features(arch)
    ratio = four_inputs if arch.part.family == "ecp5" else 1
    return ratio * sum(counted[name] * value for name, value in coefficients.items())


def modelled(
    arch: ArchConfig, kind: str, units: Mapping[str, tuple[Mapping[str, float], float]],
) -> float:
    """LUTs or flip-flops of a core.

    Parameters
    ----------
    kind : ``luts`` or ``ffs``
    units : of each unit what :func:`unit_area` takes
    """
    ports = 8 * arch.bus_bytes * arch.ports if arch.ports > 1 else 0
    counted = ports * _PORT[kind]
    if arch.nibble_tiles > 1:
        sizes = (arch.macs, arch.width, arch.lanes)
        counted += sum(a * b for a, b in zip(sizes, _NIBBLE_TILES[kind], strict=True))
    if arch.nibble_thirds:
        counted += arch.macs * _NIBBLE_THIRDS[kind]
    if arch.tiles_in_blocks and not arch.tile_quads:
        counted -= arch.tile_bits * _BLOCK_BUFFER[kind]
    if arch.trellis_codes:
        counted += arch.depth * _TRELLIS[kind][arch.part.family == "ecp5"]
    if arch.tile_quads:
        of_byte, of_product = _TILE_QUADS[kind]
        counted += arch.depth * of_byte + arch.macs * of_product
    return counted + sum(unit_area(arch, *unit) for unit in units.values())


def area(arch: ArchConfig) -> dict[str, int]:
    """``luts`` and ``ffs`` of a core."""
    return {kind: round(modelled(arch, kind, units)) for kind, units in COEFFICIENTS.items()}
